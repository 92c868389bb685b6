"""Exact copies among the documents, found by 64-bit fingerprints in bounded memory."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from ptbr_slm.data.word_hashes import mixed

_RECENT = 65_536
"""Fingerprints kept in a Python set before they move to a sorted array."""


def fingerprint(text: str, seed: int) -> tuple[int, float]:
    """(64-bit fingerprint of `text`, its split key in [0, 1), which `seed` moves too)."""
    digest = hashlib.blake2b(
        text.encode(), digest_size=16, salt=seed.to_bytes(8, "little", signed=True)
    ).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little") / 2**64


def split_keys(identities: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """The split keys in [0, 1) of groups of documents, from the least fingerprint of each."""
    return mixed(identities) / 2.0**64


def copies_of(identities: npt.NDArray[np.uint64], copies: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
    """1 and the number of exact copies for each of `identities`; `copies` are the fingerprints of those."""
    order = np.argsort(identities).astype(np.uint32)
    found, counts = np.unique(copies, return_counts=True)
    result = np.ones(len(identities), np.uint32)
    result[order[np.searchsorted(identities, found, sorter=order)]] += counts.astype(np.uint32)
    return result


class SeenTexts:
    """A set of 64-bit fingerprints in at most 16 bytes each (a Python set takes 70 or more).

    Sorted arrays whose sizes at least double; merging two of them is the peak. Two different texts among
    ten million share a fingerprint with probability 3e-6.
    """

    def __init__(self, known: npt.NDArray[np.uint64] | None = None) -> None:
        """known: what is in the set at first; the array is sorted in place."""
        self._recent: set[int] = set()
        self._levels: list[npt.NDArray[np.uint64]] = []
        if known is not None and len(known):
            self._store(known)

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
