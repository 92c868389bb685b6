"""Drops what is too short to be prose: a heading, a page number, a single word."""

from __future__ import annotations

from dataclasses import dataclass

from ptbr_slm.data.document import Document
from ptbr_slm.data.stages.stage import Dropped


@dataclass(frozen=True, slots=True)
class AtLeastTwoWords:
    """Drops a text of fewer than two words, as `too_short`."""

    name: str = "at_least_two_words"

    def __call__(self, document: Document) -> Document | Dropped:
        """The document, or `too_short`."""
        words = len(document.text.split(maxsplit=2))
        return document if words >= 2 else Dropped("too_short", {"words": words, "least": 2})
