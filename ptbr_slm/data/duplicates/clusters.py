"""Which documents are near copies: candidates compared by the real Jaccard similarity of their shingles.

`ShingleStore` takes the candidates' texts and keeps their sets of word shingles in a file. `find_clusters`
joins documents into groups, and names in each group the copies and what stands for them.
"""

from __future__ import annotations

import os
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from ptbr_slm.data.duplicates.signatures import (
    NearDuplicateSettings,
    Numbers,
    SignatureIndex,
    shingles,
    signatures,
)
from ptbr_slm.data.word_hashes import Hashes

_REPRESENTATIVES = 64
"""Kept documents of a group that the next one is compared with."""
_HIGHER_THRESHOLDS = (0.7, 0.85, 0.95)
"""Similarities by which a group that is too large is divided."""
_REPEATS = ((1, 1), (2, 2), (3, 3), (5, 5), (100, 8), (1_000, 1))
"""(documents in a cluster at least, times)."""
_PAIRS = 1 << 16
"""Pairs that are compared before more are taken from the array."""
_CACHED_SETS = 256
_BATCH = 512
_BATCH_CHARACTERS = 4_000_000


class ShingleStore:
    """The shingle sets of candidates in a file, 4 bytes a shingle: the upper half of its hash, sorted."""

    def __init__(self, folder: Path, pairs: Hashes, settings: NearDuplicateSettings) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.settings = settings
        self.wanted: Numbers = np.unique(
            np.concatenate([pairs >> np.uint64(32), pairs & np.uint64(0xFFFFFFFF)])
        ).astype(np.uint32)
        """The numbers whose texts are needed, sorted."""
        self._offsets = np.zeros(len(self.wanted), np.int64)
        self._lengths = np.zeros(len(self.wanted), np.int32)
        self._file = (folder / "shingles.u32").open("w+b")
        self._read = lru_cache(_CACHED_SETS)(self._read_set)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def wants(self, number: int) -> bool:
        """Whether the text of this document is needed."""
        at = bisect(self.wanted, number) - 1
        return at >= 0 and int(self.wanted[at]) == number

    def add(self, number: int, text: str) -> None:
        """Take the text of a document that is wanted."""
        kept = np.unique((shingles(text, self.settings) >> np.uint64(32)).astype(np.uint32))
        at = int(np.searchsorted(self.wanted, np.uint32(number)))
        self._offsets[at], self._lengths[at] = self._file.seek(0, os.SEEK_END), len(kept)
        self._file.write(kept.tobytes())

    def jaccard(self, first: int, second: int) -> float:
        """Shared shingles over all shingles of two documents."""
        a, b = self._read(first), self._read(second)
        shared = len(np.intersect1d(a, b, assume_unique=True))
        return shared / max(len(a) + len(b) - shared, 1)

    def may_reach(self, first: int, second: int, threshold: float) -> bool:
        """Whether the sizes of two sets allow this similarity."""
        a, b = self._length(first), self._length(second)
        return min(a, b) >= threshold * max(a, b)

    def _length(self, number: int) -> int:
        return int(self._lengths[np.searchsorted(self.wanted, np.uint32(number))])

    def _read_set(self, number: int) -> Numbers:
        at = int(np.searchsorted(self.wanted, np.uint32(number)))
        self._file.flush()
        data = os.pread(self._file.fileno(), int(self._lengths[at]) * 4, int(self._offsets[at]))
        return np.frombuffer(data, np.uint32)


@dataclass(frozen=True, slots=True)
class Clusters:
    """Which documents are copies of which, and which must stay together; those alone are not listed."""

    members: Numbers
    """Sorted."""
    kept: Numbers
    """For each member the document that it is a copy of: itself where it is none."""
    group: Numbers
    """For each member the first document of its group."""

    def original_of(self, number: int) -> int:
        """The document that stands for this one; itself where it is kept."""
        at = self._find(number)
        return number if at is None else int(self.kept[at])

    def group_of(self, number: int) -> int:
        """The first document of the group that this one is in; itself where it is alone."""
        at = self._find(number)
        return number if at is None else int(self.group[at])

    @property
    def copies(self) -> int:
        """Documents that are a copy of another."""
        return int(np.count_nonzero(self.members != self.kept))

    def sizes(self, copies: Numbers) -> Numbers:
        """How many documents each stands for; 0 for one that is a copy of another.

        copies: 1 and the number of exact copies for each document of the input.
        """
        sizes = copies.copy()
        sizes[self.members] = 0
        np.add.at(sizes, self.kept, copies[self.members])
        return sizes

    def group_identities(self, identities: Hashes) -> tuple[Numbers, Hashes]:
        """(members of a group of two or more, the least of `identities` in it), whatever the order."""
        firsts, inverse, counts = np.unique(self.group, return_inverse=True, return_counts=True)
        least = np.full(len(firsts), np.iinfo(np.uint64).max, np.uint64)
        np.minimum.at(least, inverse, identities[self.members])
        together = counts[inverse] > 1
        return self.members[together], least[inverse][together]

    def _find(self, number: int) -> int | None:
        at = bisect(self.members, number) - 1
        return at if at >= 0 and int(self.members[at]) == number else None


def repeats(sizes: Numbers) -> npt.NDArray[np.int64]:
    """How often documents are repeated in training that `sizes` documents of the input each are copies of.

    The weights of FineWeb2 ("rehydration", huggingface/fineweb-2 at d0defb2): what the web has only once
    is the worst of it, and what it has more than a thousand times is spam.
    """
    least, times = np.array([(0, 0), *_REPEATS]).T
    found: npt.NDArray[np.int64] = times[np.searchsorted(least, sizes, side="right") - 1]
    return found


def find_near_duplicates(
    texts: Callable[[], Iterable[tuple[int, str]]], folder: Path, settings: NearDuplicateSettings
) -> Clusters:
    """The clusters of the documents that `texts` gives as (number, text), in any order; it is called twice.

    folder: for files of 8 bytes a band and document and 4 a word of a candidate.
    Raises E_DEPENDENCY where rensa is not installed.
    """
    documents = 0
    with SignatureIndex(folder, settings) as index:
        for batch in _batches(texts()):
            documents += len(batch)
            numbers, batch_texts = zip(*batch, strict=True)
            index.add(numbers, signatures(batch_texts, settings))
        pairs = index.candidate_pairs()
    with ShingleStore(folder, pairs, settings) as store:
        for number, text in texts():
            if store.wants(number):
                store.add(number, text)
        return find_clusters(pairs, store, documents)


def find_clusters(pairs: Hashes, store: ShingleStore, documents: int) -> Clusters:
    """The copies by `threshold`, and the groups by `group_threshold`, among `documents` documents.

    Documents that are connected are looked at in order. One that is similar enough to a kept one is its copy;
    else it is kept. So each copy was compared with what stands for it, however long the chain is.

    A group of more than half of the documents is made from one template. It is divided by higher and higher
    thresholds, and where that does not help its documents stay alone, or nothing could be held out.
    """
    firsts = np.searchsorted(store.wanted, (pairs >> np.uint64(32)).astype(np.uint32))
    seconds = np.searchsorted(store.wanted, (pairs & np.uint64(0xFFFFFFFF)).astype(np.uint32))
    connected = _connected(firsts, seconds, store, store.settings.group_threshold)
    kept = np.arange(len(connected))
    for group in _members(connected):
        kept[group] = _originals(group, store)
    groups = connected.copy()
    for threshold in (*_HIGHER_THRESHOLDS, None):
        for large in (group for group in _members(groups) if len(group) > documents / 2):
            groups[large] = large
            if threshold is not None:
                inside = np.isin(firsts, large) & np.isin(seconds, large)
                divided = _connected(firsts[inside], seconds[inside], store, threshold)
                groups[large] = divided[large]
    counts = np.bincount(groups, minlength=len(groups))
    listed = np.flatnonzero((counts[groups] > 1) | (kept != np.arange(len(kept))))
    listed = np.union1d(listed, kept[listed])
    return Clusters(store.wanted[listed], store.wanted[kept[listed]], store.wanted[groups[listed]])


def _connected(
    firsts: npt.NDArray[np.intp], seconds: npt.NDArray[np.intp], store: ShingleStore, threshold: float
) -> npt.NDArray[np.int64]:
    """For each position in `store.wanted` the first that a chain of pairs so similar leads to."""
    sets = _UnionFind(len(store.wanted))
    for start in range(0, len(firsts), _PAIRS):  # Python's numbers take eight times as much
        part = slice(start, start + _PAIRS)
        for first, second in zip(firsts[part].tolist(), seconds[part].tolist(), strict=True):
            if sets.root(first) == sets.root(second):
                continue
            a, b = int(store.wanted[first]), int(store.wanted[second])
            if store.may_reach(a, b, threshold) and store.jaccard(a, b) >= threshold:
                sets.join(first, second)
    return sets.roots()


def _members(roots: npt.NDArray[np.int64]) -> list[npt.NDArray[np.intp]]:
    """The positions of each set of two or more, in order."""
    if not len(roots):
        return []
    counts = np.bincount(roots, minlength=len(roots))
    grouped = np.flatnonzero(counts[roots] > 1)
    by_group = grouped[np.lexsort((grouped, roots[grouped]))]
    parts = np.split(by_group, np.flatnonzero(np.diff(roots[by_group])) + 1)
    return [part for part in parts if len(part)]


def _originals(group: npt.NDArray[np.intp], store: ShingleStore) -> list[int]:
    """For each position in `store.wanted` the position of the document that stands for it."""
    threshold = store.settings.threshold
    result: list[int] = []
    representatives: list[int] = []
    for position in group.tolist():
        number = int(store.wanted[position])
        for other in representatives:
            against = int(store.wanted[other])
            if store.may_reach(against, number, threshold) and store.jaccard(against, number) >= threshold:
                result.append(other)
                break
        else:
            result.append(position)
            if len(representatives) < _REPRESENTATIVES:
                representatives.append(position)
    return result


def _batches(texts: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Lists of at most `_BATCH` documents and about `_BATCH_CHARACTERS` characters."""
    batch: list[tuple[int, str]] = []
    size = 0
    for number, text in texts:
        batch.append((number, text))
        size += len(text)
        if len(batch) == _BATCH or size > _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class _UnionFind:
    """Disjoint sets of 0 .. n - 1; the root of a set is its least member."""

    def __init__(self, n: int) -> None:
        self._parents = np.arange(n, dtype=np.int64)

    def root(self, i: int) -> int:
        while (parent := int(self._parents[i])) != i:
            self._parents[i] = i = int(self._parents[parent])
        return i

    def join(self, i: int, j: int) -> None:
        low, high = sorted((self.root(i), self.root(j)))
        self._parents[high] = low

    def roots(self) -> npt.NDArray[np.int64]:
        while not np.array_equal(above := self._parents[self._parents], self._parents):
            self._parents = above
        return self._parents
