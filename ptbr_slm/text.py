"""Text as people, shells and files read it: numbers, words of a command line, bytes and paths."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from urllib.parse import quote_from_bytes, unquote_to_bytes

# Numbers, as Brazilian readers expect them


def number(value: float, decimals: int = 0) -> str:
    """12345.6 -> '12.346' (or '12.345,6' with one decimal): thousands with points, decimals after a comma."""
    return f"{value:,.{decimals}f}".translate(str.maketrans(",.", ".,"))


def told_apart(one: float, other: float, decimals: int) -> tuple[str, str]:
    """Both numbers, with up to two more decimals where they differ and would look equal."""
    for more in range(3):
        shown = number(one, decimals + more), number(other, decimals + more)
        if shown[0] != shown[1]:
            break
    return shown


def human_bytes(count: float) -> str:
    """1536 -> '1,5 KiB', with a Brazilian decimal comma."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{number(count, 0 if unit == 'B' else 1)} {unit}"


DURATION = r"\s*(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?\s*"
"""Hours, minutes and seconds, in that order; matches an empty text too."""


def parse_duration(text: str) -> int:
    """'11h30m' -> 41400, '90s' -> 90. Raises ValueError for anything else, and for no time at all."""
    found = re.fullmatch(DURATION, text)
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if not total:
        raise ValueError(f"not a duration: {text!r}")
    return total


_SIZE = re.compile(r"(\d+(?:[.,]\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """'200MB' -> 200000000, '1,5 GiB' -> 1610612736, '64' -> 64. Raises ValueError for anything else."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"not a size: {text!r}")
    amount, prefix, binary = found.groups()
    scale: int = (1024 if binary else 1000) ** " kmgt".index(prefix.lower() or " ")
    return round(float(amount.replace(",", ".")) * scale)


# Words of a shell


def quoted(word: str | os.PathLike[str]) -> str:
    """`word` as one word of a shell: `out` stays as it is, `a b/$(z)` becomes `'a b/$(z)'`.

    A path that begins with a dash gets `./` before it, so that no program takes it for an option.
    """
    text = os.fspath(word)
    return shlex.quote("./" + text if isinstance(word, PurePath) and text.startswith("-") else text)


# Bytes
#
# Text is UTF-8, with or without a byte order mark, wherever it comes in. Windows' editors write the mark
# (EF BB BF) before UTF-8, and PowerShell 5 writes UTF-16. The mark is no text.

BOM = b"\xef\xbb\xbf"
"""U+FEFF in UTF-8."""

UTF16_HINT = "iconv -f utf-16 -t utf-8 ANTIGO > NOVO"
"""The command that converts a file in UTF-16."""

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_HEAD = 4_096
_ZEROS, _FEW = 0.4, 0.05
"""Without a mark: the share of NULs in every second byte of Latin text in UTF-16, and in the others."""


def decode(raw: bytes) -> str:
    """`raw` as text without its byte order mark. Raises UnicodeDecodeError, for UTF-16 with a word of it."""
    if is_utf16(raw):  # its Latin letters are UTF-8 too, with NULs between them
        raise UnicodeDecodeError("utf-8", raw, 0, 1, "parece UTF-16")
    return raw.removeprefix(BOM).decode("utf-8")


def is_utf16(raw: bytes) -> bool:
    """Whether `raw`, the beginning of a text, is in UTF-16 or UTF-32, by its mark or by its NULs."""
    head = raw[:_HEAD]
    if head.startswith(_UTF16_MARKS):
        return True
    even, odd = (half.count(0) / max(len(half), 1) for half in (head[::2], head[1::2]))
    return len(head) >= 8 and max(even, odd) > _ZEROS and min(even, odd) < _FEW


# Paths in a file that must be UTF-8. On Linux a name is any bytes (PEP 383: lone surrogates).

_SCHEME = "file://"


def is_utf8(path: Path | str) -> bool:
    """Whether the path can be written in UTF-8."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def path_to_text(path: Path) -> str:
    """The path itself, or, where it is not UTF-8, its absolute `file:` URL (RFC 8089)."""
    return str(path) if is_utf8(path) else _SCHEME + quote_from_bytes(os.fsencode(path.absolute()))


def text_to_path(text: str) -> Path:
    """The path that `path_to_text` wrote."""
    if text.startswith(_SCHEME + "/"):
        return Path(os.fsdecode(unquote_to_bytes(text.removeprefix(_SCHEME))))
    return Path(text)


@contextmanager
def utf8_folder(folder: Path) -> Iterator[Path]:
    """`folder`, or, where its name is not UTF-8, a link to it until the block ends.

    On Linux a name is any bytes; ONNX Runtime's Python binding (pybind11's `std::string`) takes UTF-8 only.
    """
    if is_utf8(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="ptbr-slm-") as parent:
        link = Path(parent) / "export"
        link.symlink_to(folder.resolve(), target_is_directory=True)
        yield link
