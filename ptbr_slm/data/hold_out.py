"""How much text is held out: where whole documents miss the fraction that was asked, another choice of them.

`split.Splitter` holds out each document by its hash alone, in one pass. With many documents that is the
fraction of the text; with a few, or with one long one among short ones, it is far off. Then the sizes are
known, and the texts are read once more: documents are held out in the order of their hashes as long as they
fit, and the end of the first one that is far too long for the rest.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ptbr_slm.data.drops import DropCounts
from ptbr_slm.data.read import Document

TOLERANCE = 2.0
"""Held-out text from half to twice of what was asked is left as it is."""
MIN_CUT_BYTES = 16 << 10
"""Documents shorter than this stay whole."""
_BORDERS = (re.compile(r"\n\n+"), re.compile(r"\n"), re.compile(r"[.!?…][\"'”’»)\]]* "), re.compile(r" "))
"""Where a document may be cut, the best first: paragraph, line, sentence, word."""


class Survey:
    """The place in [0, 1) and the size in bytes of each distinct document: 12 bytes a document."""

    def __init__(self) -> None:
        self.places = array("d")
        self.sizes = array("I")

    def add(self, document: Document, place: float) -> None:
        """Take note of a document."""
        self.places.append(place)
        self.sizes.append(len(document.text.encode()))


@dataclass(frozen=True, slots=True)
class HoldOut:
    """Which documents are held out: those below a place, with exceptions, and the end of one more."""

    below: float
    exceptions: frozenset[float]
    """Places whose documents go to the other side."""
    cut: float | None
    """The place of the document whose end is held out."""
    cut_bytes: int
    bytes: int
    """Held out in all, about."""

    def assign(self, document: Document, place: float, drops: DropCounts) -> Iterator[tuple[str, Document]]:
        """(part, document), twice for the one that is cut, which is counted in `drops`."""
        if place == self.cut:
            at = cut_point(document.text, self.cut_bytes)
            if at is not None:
                drops.repair("end_held_out", document.source)
                yield "train", Document(document.text[:at].rstrip(), document.source)
                yield "valid", Document(document.text[at:].strip("\n"), document.source)
                return
        held = (place < self.below) != (place in self.exceptions)
        yield ("valid" if held else "train"), document


def better_choice(survey: Survey, fraction: float, held: int) -> HoldOut | None:
    """A choice nearer to `fraction` of the text than `held` bytes are; None where there is no need."""
    total = sum(survey.sizes)
    goal = fraction * total
    if not goal or _miss(held, goal) <= TOLERANCE:
        return None
    found = _choose(survey, goal, total)
    return found if _miss(found.bytes, goal) < _miss(held, goal) else None


def cut_point(text: str, end_bytes: int) -> int | None:
    """Where to cut `text` so that about the last `end_bytes` of its UTF-8 are apart; None without a border.

    The nearest border of the best kind between half and twice of that.
    """
    end = round(end_bytes * len(text) / max(len(text.encode()), 1))
    wanted, first, last = len(text) - end, max(1, len(text) - 2 * end), len(text) - end // 2
    for border in _BORDERS:
        points = [found.end() for found in border.finditer(text, first, last)]
        if points:
            return min(points, key=lambda at: abs(at - wanted))
    return None


def _choose(survey: Survey, goal: float, total: int) -> HoldOut:
    """Documents in the order of their places as they fit into `goal` bytes; see the module."""
    places, sizes = np.array(survey.places), np.array(survey.sizes, dtype=np.int64)
    skipped: set[float] = set()
    taken, below = 0, 0.0
    for i in np.argsort(places, kind="stable"):
        place, size, rest = float(places[i]), int(sizes[i]), goal - taken
        if size < TOLERANCE * rest and len(places) > 1:
            taken += size
        elif taken >= goal / 2:
            break
        elif size >= MIN_CUT_BYTES:
            return HoldOut(place, frozenset(skipped), place, round(rest), round(goal))
        else:
            skipped.add(place)
        below = float(np.nextafter(place, 1))
    if taken or len(places) < 2:
        return HoldOut(below, frozenset(skipped), None, 0, taken)
    # Only short documents, each more than the fraction: one of them, not longer than most
    fits = sizes <= max(int(sizes.min()), min(int(1.5 * total / len(sizes)), total // 2))
    chosen = float(places[fits].min())
    size = int(sizes[places == chosen][0])
    return HoldOut(0.0, frozenset({chosen}), None, 0, size)


def _miss(held: float, goal: float) -> float:
    """How many times too much or too little."""
    return max(held / goal, goal / held) if held else float("inf")
