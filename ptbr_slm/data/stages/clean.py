"""The text of a document as it enters the data: NFC, `\\n` line ends, nothing invisible, prose unwrapped.

PDFs and web pages leave soft hyphens, zero-width characters and ligatures in a text; a word with one of them
inside has other tokens than the word. UTF-8 that was once read as Latin-1 or Windows-1252 (`nÃ£o`) is
undone where it can be nothing else.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import NamedTuple

from ptbr_slm.data.document import Document
from ptbr_slm.data.stages.stage import Dropped
from ptbr_slm.data.stages.unwrap import SOFT_HYPHEN, unwrap
from ptbr_slm.errors import missing_extra

NORMALIZATION = (
    "NFC; \\n line ends; no control or invisible characters, U+FEFF or trailing spaces; NBSP as space; "
    "Latin ligatures spelled out; prose unwrapped"
)
"""Written into index.json, so that the data say how they were made."""

BINARY_SHARE = 0.02
"""A text with more control characters than this is taken for a binary file."""
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff]")
_MANY_NEWLINES = re.compile(r"\n{3,}")
_TRAILING = re.compile(r"[ \t]+$", re.MULTILINE)


class Cleaned(NamedTuple):
    """What cleaning made of a text."""

    text: str
    """Empty where the text is dropped."""
    repairs: tuple[str, ...] = ()
    """Keys of `document.REPAIRS`."""
    dropped: str | None = None
    """A key of `document.REASONS`."""


def clean(text: str) -> Cleaned:
    """The cleaned text, or the reason why it is dropped: it is not text, or nothing is left of it."""
    repairs: list[str] = []
    decoded = repair_encoding(text)  # first: half of a broken character is a control character
    if decoded != text:
        repairs.append("mojibake")
    text = decoded
    controls = len(_CONTROL.findall(text)) if _CONTROL.search(text) else 0
    if "\x00" in text or controls > BINARY_SHARE * len(text) + 1:
        return Cleaned("", tuple(repairs), "binary")
    if controls:
        text = _CONTROL.sub("", text)
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x0b", "\n").replace("\x0c", "\n\n")
    text = text.replace("\x85", "\n").replace("\u2028", "\n").replace("\u2029", "\n\n").replace("\xa0", " ")
    if LIGATURES.search(text):
        text = spell_out_ligatures(text)
        repairs.append("ligatures")
    if INVISIBLE.search(text):
        visible = remove_invisible(text)
        if visible != text or SOFT_HYPHEN in text:
            repairs.append("invisible")
        text = visible
    text = unicodedata.normalize("NFC", text)
    if " \n" in text or "\t\n" in text:  # the expression tries every space: 0.4 s for 10 MB
        text = _TRAILING.sub("", text)
    text = _MANY_NEWLINES.sub("\n\n", text).strip("\n").rstrip(" \t\n")
    unwrapped = unwrap(text)
    if unwrapped != text:
        repairs.append("unwrapped")
    if not unwrapped.strip():
        return Cleaned("", tuple(repairs), "empty")
    return Cleaned(unwrapped, tuple(repairs))


@dataclass(frozen=True, slots=True)
class Clean:
    """`clean` as a stage."""

    name: str = "clean"

    def __call__(self, document: Document) -> Document | Dropped:
        """The document with its text cleaned; dropped as `binary` or `empty`."""
        cleaned = clean(document.text)
        if cleaned.dropped is not None:
            return Dropped(cleaned.dropped)
        return document.repaired(cleaned.text, *cleaned.repairs)


# UTF-8 read as Latin-1 or Windows-1252

_MOJIBAKE = re.compile("Ã[£©¡³ºª§µ¢´­\xad¨¼€‡‰“”•\x80-\x9f]|Â[ºª°«»§\xa0]|â€[œ™˜¦“”\x9c\x9d]|ï»¿")
"""Pairs that Portuguese does not write: ã é á í ó ú ê ç õ â ô and quotes, seen through Latin-1."""
_MOJIBAKE_LOWER = re.compile("[a-zç][ÃÂ]|[ÃÂ][£©¡³ºª§µ¢´­\xad°«»\xa0]|â€")
"""At least one of these too: `IRMÃ”` at the end of a quotation is capitals and a quote, not a broken `Ô`."""


def repair_encoding(text: str) -> str:
    """`text` with its broken lines repaired; the same text where nothing is certainly broken.

    Works line by line with ftfy, and keeps a line's repair only if no broken pair is left in it.
    Raises E_DEPENDENCY where a text needs it and ftfy is not installed.
    """
    if _MOJIBAKE.search(text) is None or _MOJIBAKE_LOWER.search(text) is None:
        return text
    try:
        import ftfy
    except ImportError as error:
        raise missing_extra("ftfy") from error
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if _MOJIBAKE_LOWER.search(line):
            fixed = ftfy.fix_encoding(line)
            if not _MOJIBAKE.search(fixed):
                lines[number] = fixed
    return "\n".join(lines)


# Ligatures and invisible characters

LIGATURES = re.compile("[\ufb00-\ufb06]")
"""ﬀ ﬁ ﬂ ﬃ ﬄ ﬅ ﬆ"""
_LIGATURE_LETTERS = ("ff", "fi", "fl", "ffi", "ffl", "st", "st")
_SPELLED_OUT = {0xFB00 + number: letters for number, letters in enumerate(_LIGATURE_LETTERS)}

INVISIBLE = re.compile("[\xad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f]")
"""Soft hyphen; zero-width space and joiners; marks of direction; word joiner and invisible operators."""
_NEVER_MEANT = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f]")
_USELESS_JOINER = re.compile("(?<![^\x00-\u024f])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\u024f])")
"""Joiners beside Latin letters, spaces or punctuation, or at either end: they join nothing."""
_HYPHEN_AT_LINE_END = re.compile("\xad+[ \t]*\n[ \t]*(?=[^\\W\\d_])")
_HYPHEN_BEFORE_SPACE = re.compile("(?<=[^\\W\\d_])\xad+[ \t]+(?=[^\\W\\d_])")
_HYPHEN_INSIDE_LINE = re.compile("\xad(?!\n[^\\W\\d_])")


def spell_out_ligatures(text: str) -> str:
    """`text` with each ligature as its letters."""
    return text.translate(_SPELLED_OUT)


def remove_invisible(text: str) -> str:
    """`text` without what `INVISIBLE` finds, but for joiners that join and soft hyphens that end a line.

    The joiners U+200C and U+200D mean something between emoji and in scripts that need them (Unicode
    Standard, sections 23.2 and 23.8). A soft hyphen at a line's end is left to `unwrap`, which joins the
    lines. A word that one parts at a space (`tra`, a soft hyphen, ` dução`: lines joined before) is whole
    again.
    """
    text = _NEVER_MEANT.sub("", text)
    text = _USELESS_JOINER.sub("", text)
    if SOFT_HYPHEN not in text:
        return text
    text = _HYPHEN_AT_LINE_END.sub("\xad\n", text)
    text = _HYPHEN_BEFORE_SPACE.sub("", text)
    return _HYPHEN_INSIDE_LINE.sub("", text)
