"""Which text is held out for validation: a fraction of the text, whatever the number of documents.

`HashSplitter` holds out each document by its split key alone, a hash of its text, in one pass: nothing but
the text and the seed decides. With many documents that is the fraction of the text; with a few, or with one
long one among short ones, it is far off. Then the sizes are known, and the texts are read once more with
`HoldOut`: documents are held out in the order of their keys as long as they fit, and the end of the first one
that is far too long for the rest.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ptbr_slm.data.document import Document
from ptbr_slm.data.index import SplitName

TOLERANCE = 2.0
"""Held-out text from half to twice of what was asked is left as it is."""
MIN_CUT_BYTES = 16 << 10
"""Documents shorter than this stay whole."""
_BOUNDARIES = (re.compile(r"\n\n+"), re.compile(r"\n"), re.compile(r"[.!?…][\"'”’»)\]]* "), re.compile(r" "))
"""Where a document may be cut, the best first: paragraph, line, sentence, word."""

Assigned = tuple[SplitName, Document]


class HashSplitter:
    """Sends each document to `train` or `valid`; with two documents or more, neither stays empty.

    Until both splits have one, the document nearest to the other split is held back (one in memory), and goes
    there at the end if nothing else did. The result does not depend on the order of the documents.
    """

    def __init__(self, valid_fraction: float) -> None:
        self.valid_fraction = valid_fraction
        self._documents: dict[SplitName, int] = {"train": 0, "valid": 0}
        self._pending: tuple[float, Document] | None = None

    def assign(self, document: Document, key: float) -> Iterator[Assigned]:
        """(split, document) for what can be written now; `key` comes from `fingerprint`."""
        split: SplitName = "valid" if key < self.valid_fraction else "train"
        other: SplitName = "train" if split == "valid" else "valid"
        self._documents[split] += 1
        if self._documents[other] or not self.valid_fraction:
            if self._pending is not None:
                yield other, self._pending[1]
                self._pending = None
            yield split, document
        elif self._pending is None:
            self._pending = key, document
        else:
            distance = abs(key - self.valid_fraction)
            if distance < abs(self._pending[0] - self.valid_fraction):
                self._pending, document = (key, document), self._pending[1]
            yield split, document

    def finish(self) -> Iterator[Assigned]:
        """The document still held back, if any."""
        if self._pending is not None:
            yield "valid" if self._documents["train"] > 1 else "train", self._pending[1]


class DocumentSizes:
    """The split key and the size in bytes of each distinct document: 12 bytes a document."""

    def __init__(self) -> None:
        self.keys = array("d")
        self.sizes = array("I")

    def add(self, document: Document, key: float) -> None:
        """Take note of a document."""
        self.keys.append(key)
        self.sizes.append(len(document.text.encode()))


@dataclass(frozen=True, slots=True)
class HoldOut:
    """Which documents are held out: those below a key, with exceptions, and the end of one more."""

    below: float
    exceptions: frozenset[float]
    """Keys of the documents that go to the other split."""
    cut: float | None
    """The key of the document whose end is held out."""
    cut_bytes: int
    bytes: int
    """Held out in all, about."""

    def assign(self, document: Document, key: float) -> tuple[Assigned, ...]:
        """(split, document), twice for the document that is cut."""
        if key == self.cut:
            at = cut_point(document.text, self.cut_bytes)
            if at is not None:
                return (
                    ("train", replace(document, text=document.text[:at].rstrip())),
                    ("valid", replace(document, text=document.text[at:].strip("\n"))),
                )
        held = (key < self.below) != (key in self.exceptions)
        return (("valid" if held else "train", document),)


def better_hold_out(documents: DocumentSizes, fraction: float, held: int) -> HoldOut | None:
    """A choice nearer to `fraction` of the text than `held` bytes are; None where there is no need."""
    total = sum(documents.sizes)
    goal = fraction * total
    if not goal or _miss(held, goal) <= TOLERANCE:
        return None
    found = _choose(documents, goal, total)
    return found if _miss(found.bytes, goal) < _miss(held, goal) else None


def cut_point(text: str, end_bytes: int) -> int | None:
    """Where to cut `text` so that about the last `end_bytes` of its UTF-8 are apart; None without a boundary.

    The nearest boundary of the best kind between half and twice of that.
    """
    end = round(end_bytes * len(text) / max(len(text.encode()), 1))
    wanted, first, last = len(text) - end, max(1, len(text) - 2 * end), len(text) - end // 2
    for boundary in _BOUNDARIES:
        points = [found.end() for found in boundary.finditer(text, first, last)]
        if points:
            return min(points, key=lambda at: abs(at - wanted))
    return None


def _choose(documents: DocumentSizes, goal: float, total: int) -> HoldOut:
    """Documents in the order of their keys as they fit into `goal` bytes; see the module."""
    keys, sizes = np.array(documents.keys), np.array(documents.sizes, dtype=np.int64)
    skipped: set[float] = set()
    taken, below = 0, 0.0
    for i in np.argsort(keys, kind="stable"):
        key, size, rest = float(keys[i]), int(sizes[i]), goal - taken
        if size < TOLERANCE * rest and len(keys) > 1:
            taken += size
        elif taken >= goal / 2:
            break
        elif size >= MIN_CUT_BYTES:
            return HoldOut(key, frozenset(skipped), key, round(rest), round(goal))
        else:
            skipped.add(key)
        below = float(np.nextafter(key, 1))
    if taken or len(keys) < 2:
        return HoldOut(below, frozenset(skipped), None, 0, taken)
    # Only short documents, each more than the fraction: one of them, not longer than most
    fits = sizes <= max(int(sizes.min()), min(int(1.5 * total / len(sizes)), total // 2))
    chosen = float(keys[fits].min())
    size = int(sizes[keys == chosen][0])
    return HoldOut(0.0, frozenset({chosen}), None, 0, size)


def _miss(held: float, goal: float) -> float:
    """How many times too much or too little."""
    return max(held / goal, goal / held) if held else float("inf")
