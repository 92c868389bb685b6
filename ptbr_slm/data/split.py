"""Which documents are held out: decided by a hash of the text, so by nothing but the text and the seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ptbr_slm.data.read import Document

_RECENT = 65_536


def fingerprint(text: str, seed: int) -> tuple[int, float]:
    """(64-bit identity of `text`, its place in [0, 1) for the split, which `seed` moves)."""
    digest = hashlib.blake2b(
        text.encode(), digest_size=16, salt=seed.to_bytes(8, "little", signed=True)
    ).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little") / 2**64


class SeenTexts:
    """A set of 64-bit fingerprints in at most 16 bytes each (a Python set takes 70 or more).

    Sorted arrays whose sizes at least double; merging two of them is the peak. Two different texts among
    ten million share a fingerprint with probability 3e-6.
    """

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._levels: list[npt.NDArray[np.uint64]] = []

    def add(self, identity: int) -> bool:
        """Remember `identity`; False where it was known already."""
        if identity in self._recent:
            return False
        wanted = np.uint64(identity)
        for level in self._levels:
            at = int(np.searchsorted(level, wanted))
            if at < len(level) and level[at] == wanted:
                return False
        self._recent.add(identity)
        if len(self._recent) >= _RECENT:
            self._store(np.fromiter(self._recent, dtype=np.uint64, count=len(self._recent)))
            self._recent.clear()
        return True

    def _store(self, new: npt.NDArray[np.uint64]) -> None:
        while self._levels and len(self._levels[-1]) <= len(new):
            new = np.concatenate([self._levels.pop(), new])
        new.sort()
        self._levels.append(new)


class Splitter:
    """Sends each document to `train` or `valid`; with two documents or more, neither stays empty.

    Until both parts have one, the document nearest to the other part is held back (one in memory), and goes
    there at the end if nothing else did. The result does not depend on the order of the documents.
    """

    def __init__(self, valid_fraction: float) -> None:
        self.valid_fraction = valid_fraction
        self._seen = {"train": 0, "valid": 0}
        self._held: tuple[float, Document] | None = None

    def assign(self, document: Document, place: float) -> Iterator[tuple[str, Document]]:
        """(part, document) for what can be written now; `place` comes from `fingerprint`."""
        part = "valid" if place < self.valid_fraction else "train"
        other = "train" if part == "valid" else "valid"
        self._seen[part] += 1
        if self._seen[other] or not self.valid_fraction:
            if self._held is not None:
                yield other, self._held[1]
                self._held = None
            yield part, document
        elif self._held is None:
            self._held = place, document
        else:
            distance = abs(place - self.valid_fraction)
            if distance < abs(self._held[0] - self.valid_fraction):
                self._held, document = (place, document), self._held[1]
            yield part, document

    def finish(self) -> Iterator[tuple[str, Document]]:
        """The document still held back, if any."""
        if self._held is not None:
            part = "valid" if self._seen["train"] > 1 else "train"
            yield part, self._held[1]
