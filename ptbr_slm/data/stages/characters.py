"""Characters that are not what they look like: ligatures, invisible ones, and letters of another alphabet.

PDFs and web pages leave soft hyphens, zero-width characters and ligatures in a text, and imitations put
Cyrillic or Greek letters into Latin words; a word with one of them inside has other tokens than the word.
"""

from __future__ import annotations

import re

from ptbr_slm.data.stages.unwrap import SOFT_HYPHEN

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

_DOUBLED_ACCENT = re.compile("([áéíóúÁÉÍÓÚ])\u0301+|([âêôÂÊÔ])\u0302+|([ãõÃÕ])\u0303+|([àÀ])\u0300+")
"""A letter with its accent (in NFC) and the same accent again, which lies on the first."""
_MARKED = r"(?:\(?[^\W\d_]{2}|§|[IVX]+, )[\w ,.;ºª°§()/-]{0,200}"
_EDITORS_MARK = re.compile(rf"\[(?:\$({_MARKED})\$\]|#({_MARKED})#\]?)")
"""`[$deste Código$]`, `[#Estatuto#]`: references and defined words in laws that were prepared for LexML."""


def remove_doubled_accents(text: str) -> str:
    """`text`, in NFC, without accents that are written twice on one letter."""
    if not _COMBINING.search(text):
        return text
    return _DOUBLED_ACCENT.sub(lambda match: match[0][0], text)


_COMBINING = re.compile("[\u0300-\u0303]")


def remove_editors_marks(text: str) -> str:
    """`text` with the words of an editor's marks, and not the marks."""
    if "[$" not in text and "[#" not in text:
        return text
    return _EDITORS_MARK.sub(lambda match: match[1] or match[2], text)


def spell_out_ligatures(text: str) -> str:
    """`text` with each ligature as its letters."""
    return text.translate(_SPELLED_OUT) if LIGATURES.search(text) else text


def remove_invisible(text: str) -> str:
    """`text` without what `INVISIBLE` finds, but for joiners that join and soft hyphens that end a line.

    The joiners U+200C and U+200D mean something between emoji and in scripts that need them (Unicode
    Standard, sections 23.2 and 23.8). A soft hyphen at a line's end is left to `unwrap`, which joins the
    lines. A word that one parts at a space (`tra`, a soft hyphen, ` dução`: lines joined before) is whole
    again.
    """
    if INVISIBLE.search(text) is None:
        return text
    text = _NEVER_MEANT.sub("", text)
    text = _USELESS_JOINER.sub("", text)
    if SOFT_HYPHEN not in text:
        return text
    text = _HYPHEN_AT_LINE_END.sub("\xad\n", text)
    text = _HYPHEN_BEFORE_SPACE.sub("", text)
    return _HYPHEN_INSIDE_LINE.sub("", text)


# Letters of another alphabet

_LATIN = r"A-Za-zÀ-ÖØ-öø-ÿ"
_OTHER = "\u0370-\u03ff\u0400-\u052f"
_ANY_OTHER = re.compile(f"[{_OTHER}]")
_MIXED_WORD = re.compile(
    rf"(?<![\w])(?=[{_LATIN}]*[{_OTHER}])(?=[{_OTHER}]*[{_LATIN}])[{_LATIN}{_OTHER}]+(?!\w)"
)
_LOOK_ALIKES = str.maketrans(
    "аеосхурАВЕКМНОРСТХУіІјЈѕЅ" + "οΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "aeocxypABEKMHOPCTXYiIjJsS" + "oABEZHIKMNOPTYX",
)
"""Cyrillic and Greek letters that are drawn as a Latin one (Unicode Technical Standard 39, confusables.txt).

Small ν, ρ, κ and υ are left out: they stand beside Latin letters in formulas.
"""
MIN_LATIN = 2
"""Latin letters that a word must have; `kΩ`, `ΔH` and `μm` are units and formulas."""


def repair_mixed_scripts(text: str) -> str:
    """`text` with the Cyrillic and Greek look-alikes of Latin words as Latin letters.

    A word is changed only where all of its letters become Latin, and at least half of them were.
    """
    if _ANY_OTHER.search(text) is None:
        return text

    def latin(match: re.Match[str]) -> str:
        word = match.group()
        others = len(_ANY_OTHER.findall(word))
        changed = word.translate(_LOOK_ALIKES)
        if len(word) - others < max(MIN_LATIN, others) or _ANY_OTHER.search(changed):
            return word
        return changed

    return _MIXED_WORD.sub(latin, text)
