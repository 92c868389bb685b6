"""Undo UTF-8 that was once read as Latin-1 or Windows-1252 (`nÃ£o`), only where it can be nothing else."""

from __future__ import annotations

import re

from ptbr_slm.errors import missing_extra

_SURE = re.compile("Ã[£©¡³ºª§µ¢´­\xad¨¼€‡‰“”•\x80-\x9f]|Â[ºª°«»§\xa0]|â€[œ™˜¦“”\x9c\x9d]|ï»¿")
"""Pairs that Portuguese does not write: ã é á í ó ú ê ç õ â ô and quotes, seen through Latin-1."""
_LOWER = re.compile("[a-zç][ÃÂ]|[ÃÂ][£©¡³ºª§µ¢´\xad°«»\xa0]|â€")
"""At least one of these too: `IRMÃ”` at the end of a quotation is capitals and a quote, not a broken `Ô`."""


def repair(text: str) -> str:
    """`text` with its broken lines repaired; the same text where nothing is surely broken.

    Works line by line with ftfy, keeping a line's repair only if no broken pair is left in it.
    Raises E_DEPENDENCY where a text needs it and ftfy is not installed.
    """
    if _SURE.search(text) is None or _LOWER.search(text) is None:
        return text
    try:
        import ftfy
    except ImportError as error:
        raise missing_extra("ftfy") from error
    return "\n".join(
        _repaired(line, ftfy.fix_encoding(line)) if _LOWER.search(line) else line for line in text.split("\n")
    )


def _repaired(line: str, fixed: str) -> str:
    return line if _SURE.search(fixed) else fixed
