"""Bytes to text, the same at every door: UTF-8, with or without a byte order mark; UTF-16 is recognised.

Windows' editors write the mark (EF BB BF) before UTF-8, and PowerShell 5 writes UTF-16. The mark is no text.
"""

from __future__ import annotations

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
