"""What PDFs and web pages leave in a text that nobody sees: soft hyphens, zero-width characters, ligatures.

A word with one of them inside has other tokens than the word. Soft hyphens at a line's end are left to
`unwrap`, which joins the lines. The joiners U+200C and U+200D stay where they mean something: between
emoji, and in scripts that need them (Unicode Standard, sections 23.2 and 23.8).
"""

from __future__ import annotations

import re

LIGATURES = re.compile("[\ufb00-\ufb06]")
"""ﬀ ﬁ ﬂ ﬃ ﬄ ﬅ ﬆ"""
_LETTERS = ("ff", "fi", "fl", "ffi", "ffl", "st", "st")
_SPELLED = {0xFB00 + number: letters for number, letters in enumerate(_LETTERS)}

SOFT_HYPHEN = "\xad"
INVISIBLE = re.compile("[\xad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f]")
"""Soft hyphen; zero-width space and joiners; marks of direction; word joiner and invisible operators."""
_NEVER_MEANT = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f]")
_JOINER = re.compile("(?<![^\x00-\u024f])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\u024f])")
"""Joiners beside Latin letters, spaces or punctuation, or at either end: they join nothing."""
_AT_LINE_END = re.compile("\xad+[ \t]*\n[ \t]*(?=[^\\W\\d_])")
_KEPT = re.compile("\xad(?!\n[^\\W\\d_])")
_BEFORE_SPACE = re.compile("(?<=[^\\W\\d_])\xad+[ \t]+(?=[^\\W\\d_])")


def spell_out(text: str) -> str:
    """`text` with each ligature as its letters."""
    return text.translate(_SPELLED)


def without_invisible(text: str) -> str:
    """`text` without what `INVISIBLE` finds, but for joiners that join and soft hyphens that end a line.

    A word that one parts at a space (`tra`, a soft hyphen, ` dução`: lines joined before) is whole again.
    """
    text = _NEVER_MEANT.sub("", text)
    text = _JOINER.sub("", text)
    if SOFT_HYPHEN not in text:
        return text
    text = _AT_LINE_END.sub("\xad\n", text)
    text = _BEFORE_SPACE.sub("", text)
    return _KEPT.sub("", text)
