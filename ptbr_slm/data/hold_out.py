"""Which text is held out for validation: a fraction of the text, whatever the number of documents.

Each document has a split key, a hash of its text, and those below the fraction are held out: nothing but the
text and the seed decides. With many documents that is the fraction of the text; with a few, or with one long
one among short ones, it is far off. Then documents are held out in the order of their keys as long as they
fit, and the end of the first one that is far too long for the rest.

Documents that are near copies share a key, and so a side: what is learned from one tells of the other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ptbr_slm.data.document import Document
from ptbr_slm.data.index import SplitName

TOLERANCE = 2.0
"""Held-out text from half to twice of what was asked is left as it is."""
MIN_CUT_BYTES = 16 << 10
"""Documents shorter than this stay whole."""
_BOUNDARIES = (re.compile(r"\n\n+"), re.compile(r"\n"), re.compile(r"[.!?…][\"'”’»)\]]* "), re.compile(r" "))
"""Where a document may be cut, the best first: paragraph, line, sentence, word."""

Assigned = tuple[SplitName, Document]


@dataclass(frozen=True, slots=True)
class _Groups:
    """Documents that share a key, in the order of the keys."""

    keys: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.int64]
    """Bytes of all documents of a key."""
    documents: npt.NDArray[np.int64]

    @classmethod
    def of(cls, keys: npt.NDArray[np.float64], sizes: npt.NDArray[np.integer[Any]]) -> Self:
        """The groups of documents; those of size 0 are left out."""
        present = sizes > 0
        shared, which, counts = np.unique(keys[present], return_inverse=True, return_counts=True)
        totals = np.zeros(len(shared), np.int64)
        np.add.at(totals, which, sizes[present].astype(np.int64))
        return cls(shared, totals, counts)

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class HoldOut:
    """Which documents are held out: those below a key, with exceptions, and the end of one more.

    One for each key: `assign` gives all documents of a key to the same split.
    """

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
        return ((self.split_of(key), document),)

    def split_of(self, key: float) -> SplitName:
        """Where a whole document goes."""
        return "valid" if (key < self.below) != (key in self.exceptions) else "train"

    def held_out(self, keys: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Whether the documents of these keys go to the validation split."""
        exceptions = np.fromiter(self.exceptions, np.float64, len(self.exceptions))
        held: npt.NDArray[np.bool_] = (keys < self.below) != np.isin(keys, exceptions)
        return held


def choose_hold_out(
    keys: npt.NDArray[np.float64], sizes: npt.NDArray[np.integer[Any]], fraction: float
) -> HoldOut:
    """What is held out of documents with these split keys and sizes in bytes. Their order changes nothing.

    Documents that share a key are one group, and one of size 0 is not there. With two groups or more, neither
    split stays empty.
    """
    groups = _Groups.of(keys, sizes)
    by_hash = _below(groups, fraction)
    goal = fraction * float(groups.sizes.sum())
    if not goal or _miss(by_hash.bytes, goal) <= TOLERANCE:
        return by_hash
    by_size = _fitting(groups, goal)
    return by_size if _miss(by_size.bytes, goal) < _miss(by_hash.bytes, goal) else by_hash


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


def _below(groups: _Groups, fraction: float) -> HoldOut:
    """The groups with a key below `fraction`; where a split stays empty, the nearest goes to it."""
    if len(groups) < 2 or not fraction:
        return HoldOut(0.0, frozenset(), None, 0, 0)
    held = groups.keys < fraction
    exceptions: frozenset[float] = frozenset()
    if held.all() or not held.any():
        nearest = int(np.argmin(np.abs(groups.keys - fraction)))
        held[nearest] = not held[nearest]
        exceptions = frozenset({float(groups.keys[nearest])})
    return HoldOut(fraction, exceptions, None, 0, int(groups.sizes[held].sum()))


def _fitting(groups: _Groups, goal: float) -> HoldOut:
    """Groups in the order of their keys as they fit into `goal` bytes; see the module."""
    skipped: set[float] = set()
    taken, below = 0, 0.0
    for key, size, count in zip(
        groups.keys.tolist(), groups.sizes.tolist(), groups.documents.tolist(), strict=True
    ):
        rest = goal - taken
        if size < TOLERANCE * rest and len(groups) > 1:
            taken += size
        elif taken >= goal / 2:
            break
        elif size >= MIN_CUT_BYTES and count == 1:
            return HoldOut(key, frozenset(skipped), key, round(rest), round(goal))
        else:
            skipped.add(key)
        below = float(np.nextafter(key, 1))
    if taken or len(groups) < 2:
        return HoldOut(below, frozenset(skipped), None, 0, taken)
    # Only short documents, each more than the fraction: one of them, not longer than most
    total = int(groups.sizes.sum())
    fits = groups.sizes <= max(int(groups.sizes.min()), min(int(1.5 * total / len(groups)), total // 2))
    chosen = int(np.flatnonzero(fits)[0])
    return HoldOut(0.0, frozenset({float(groups.keys[chosen])}), None, 0, int(groups.sizes[chosen]))


def _miss(held: float, goal: float) -> float:
    """How many times too much or too little."""
    return max(held / goal, goal / held) if held else float("inf")
