"""The text of a document as it enters the data: NFC, `\\n` line ends, nothing invisible, prose unwrapped.

What a wrong encoding spoiled (`encoding.py`) and characters that are not what they look like
(`characters.py`) are repaired where they can be nothing else.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import NamedTuple

from ptbr_slm.data.document import Document
from ptbr_slm.data.stages.characters import (
    remove_doubled_accents,
    remove_editors_marks,
    remove_invisible,
    repair_mixed_scripts,
    spell_out_ligatures,
)
from ptbr_slm.data.stages.encoding import repair_controls, repair_lost, repair_mojibake
from ptbr_slm.data.stages.stage import Dropped
from ptbr_slm.data.stages.unwrap import SOFT_HYPHEN, unwrap

NORMALIZATION = (
    "NFC; \\n line ends; no control or invisible characters, U+FEFF or trailing spaces; NBSP as space; "
    "Latin ligatures spelled out; Windows-1252 punctuation; no look-alikes of Latin letters; prose unwrapped"
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

    def repaired(kind: str, changed: str) -> str:
        if changed != text:
            repairs.append(kind)
        return changed

    text = repaired("mojibake", repair_mojibake(text))  # first: half of a broken character is a control one
    text = repaired("windows_1252", repair_controls(text))
    if is_binary(text):
        return Cleaned("", tuple(repairs), "binary")
    text = _CONTROL.sub("", text)
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x0b", "\n").replace("\x0c", "\n\n")
    text = text.replace("\x85", "\n").replace("\u2028", "\n").replace("\u2029", "\n\n").replace("\xa0", " ")
    text = repaired("ligatures", spell_out_ligatures(text))
    visible = remove_invisible(text)
    if visible != text or SOFT_HYPHEN in text:  # those at a line's end are left to unwrap
        repairs.append("invisible")
    text = unicodedata.normalize("NFC", visible)
    text = repaired("doubled_accents", remove_doubled_accents(text))
    text = repaired("editors_marks", remove_editors_marks(text))
    text = repaired("lost_letters", repair_lost(text))
    text = repaired("mixed_scripts", repair_mixed_scripts(text))
    if " \n" in text or "\t\n" in text:  # the expression tries every space: 0.4 s for 10 MB
        text = _TRAILING.sub("", text)
    text = _MANY_NEWLINES.sub("\n\n", text).strip("\n").rstrip(" \t\n")
    text = repaired("unwrapped", unwrap(text))
    return Cleaned(text, tuple(repairs), None) if text.strip() else Cleaned("", tuple(repairs), "empty")


def is_binary(text: str) -> bool:
    """Whether `text` holds U+0000, or more control characters than text has."""
    if "\x00" in text:
        return True
    return _CONTROL.search(text) is not None and len(_CONTROL.findall(text)) > BINARY_SHARE * len(text) + 1


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
