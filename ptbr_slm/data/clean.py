"""One text as it enters the data: NFC, `\\n` line ends, nothing invisible, prose unwrapped."""

from __future__ import annotations

import re
import unicodedata

from ptbr_slm.data import mojibake
from ptbr_slm.data.drops import DropCounts
from ptbr_slm.data.invisible import INVISIBLE, LIGATURES, SOFT_HYPHEN, spell_out, without_invisible
from ptbr_slm.data.unwrap import unwrap

NORMALIZATION = (
    "NFC; \\n line ends; no control or invisible characters, U+FEFF or trailing spaces; NBSP as space; "
    "Latin ligatures spelled out; prose unwrapped"
)
"""Written into index.json, so that the data say how they were made."""

_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff]")
_MANY_NEWLINES = re.compile(r"\n{3,}")
_TRAILING = re.compile(r"[ \t]+$", re.MULTILINE)
BINARY_SHARE = 0.02
"""A text with more control characters than this is taken for a binary file."""


def normalize(text: str, drops: DropCounts, source: str) -> str | None:
    """The normalised text, or None where it is not text or says nothing (counted in `drops`)."""
    repaired = mojibake.repair(text)  # first: half of a broken character is a control character
    if repaired != text:
        drops.repair("mojibake", source)
    text = repaired
    controls = len(_CONTROL.findall(text)) if _CONTROL.search(text) else 0
    if "\x00" in text or controls > BINARY_SHARE * len(text) + 1:
        drops.drop("binary", source)
        return None
    if controls:
        text = _CONTROL.sub("", text)
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x0b", "\n").replace("\x0c", "\n\n")
    text = text.replace("\x85", "\n").replace("\u2028", "\n").replace("\u2029", "\n\n").replace("\xa0", " ")
    if LIGATURES.search(text):
        text = spell_out(text)
        drops.repair("ligatures", source)
    if INVISIBLE.search(text):
        visible = without_invisible(text)
        if visible != text or SOFT_HYPHEN in text:
            drops.repair("invisible", source)
        text = visible
    text = unicodedata.normalize("NFC", text)
    if " \n" in text or "\t\n" in text:  # the expression tries every space: 0.4 s for 10 MB
        text = _TRAILING.sub("", text)
    text = _MANY_NEWLINES.sub("\n\n", text).strip("\n").rstrip(" \t\n")
    unwrapped = unwrap(text)
    if unwrapped != text:
        drops.repair("unwrapped", source)
    if not unwrapped.strip():
        drops.drop("empty", source)
        return None
    return unwrapped
