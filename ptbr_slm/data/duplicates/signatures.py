"""MinHash signatures of documents, and which documents agree in a band of them, in bounded memory.

How near copies are found, in three steps, each over files of a working folder:

1. `signatures` reduces a document to the hashes of its MinHash bands (Broder, "On the resemblance and
   containment of documents", 1997; banding as in Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets",
   3rd edition, section 3.4). `SignatureIndex` keeps them on disk, a file a band.
2. `SignatureIndex.candidate_pairs` sorts one band at a time. Documents that agree in a band are candidates.
3. `clusters.ShingleStore` takes the candidates' texts once more, and `find_clusters` compares their sets of
   word shingles. A document is a near copy only where the real Jaccard similarity says so.

Two documents of similarity s share a band with probability 1 - (1 - s**rows)**bands: with 30 bands of 5 rows
61 % at 0.5, 91 % at 0.6, 99.6 % at 0.7. Documents are known by number, their position in the input, so that
the result does not depend on the order in which workers finish.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ptbr_slm.data.word_hashes import (
    NORMALIZATION,
    Hashes,
    mixed,
    ngram_hashes,
    normalized_words,
    word_hashes,
)
from ptbr_slm.errors import missing_extra

Numbers = npt.NDArray[np.uint32]
"""Numbers of documents, 0 to 2**32 - 2."""

_RECORDS = 4_000_000
"""Records of a band that are sorted at once, 20 bytes each."""
_NEIGHBOURS = 3
"""A document is compared with so many before it in a bucket, and with the first: a bucket of k documents that
share a band gives at most 4k pairs, not k**2."""


@dataclass(frozen=True, slots=True)
class NearDuplicateSettings:
    """What decides which documents are near copies; the index of the data records it."""

    shingle_words: int = 5
    """Words in a shingle; a shorter document has none and only exact copies."""
    bands: int = 30
    rows: int = 5
    """MinHash values in a band."""
    seed: int = 1
    """Of the MinHash permutations."""
    threshold: float = 0.8
    """A document is a copy where its Jaccard similarity to a kept one is at least this."""
    group_threshold: float = 0.5
    """Documents at least so similar fall on the same side of the validation split."""

    def description(self) -> dict[str, str | int | float]:
        """The settings with the names of the hash, the library and the normalisation."""
        minhash = _minhash()
        return {
            **asdict(self),
            "method": "MinHash, verified by Jaccard over word shingles",
            "minhash": f"rensa RMinHash, algorithm {minhash.ALGORITHM_VERSION}",
            "hash": "polynomial modulo 2**64, SplitMix64 finalizer",
            "normalization": f"{NORMALIZATION}, digits as 0",
        }


def shingles(text: str, settings: NearDuplicateSettings) -> Hashes:
    """The hashes of the word shingles of `text`, in its order, repeats included."""
    return ngram_hashes(word_hashes(normalized_words(text, fold_digits=True)), settings.shingle_words)


def signatures(texts: Sequence[str], settings: NearDuplicateSettings) -> Hashes:
    """The band hashes of each text, (texts, bands); a text without a shingle has zeros.

    Pure: workers may compute it. Raises E_DEPENDENCY where rensa is not installed.
    """
    minhash = _minhash()
    sets = [shingles(text, settings) for text in texts]
    lengths = np.array([len(hashes) for hashes in sets], np.uint64)
    values = settings.bands * settings.rows
    result = np.zeros((len(texts), settings.bands), np.uint64)
    filled = np.flatnonzero(lengths)
    if len(filled):
        offsets = np.concatenate([np.zeros(1, np.uint64), np.cumsum(lengths[filled])])
        matrix = minhash.digest_matrix_from_flat_token_hashes(
            np.concatenate(sets), offsets, values, settings.seed
        )
        minima = np.array(matrix.to_rows(), np.uint64)  # (D, bands * rows)
        by_band = minima.reshape(len(filled), settings.bands, settings.rows)  # (D, bands, rows)
        result[filled] = _band_hashes(by_band) | np.uint64(1)
    return result


def _band_hashes(values: Hashes) -> Hashes:
    """One hash for each row of the last axis: (..., rows) to (...)."""
    total = np.zeros(values.shape[:-1], np.uint64)
    for row in range(values.shape[-1]):
        total = mixed(total ^ values[..., row])
    return total


class SignatureIndex:
    """The signatures of all documents: `bands` files of 8 bytes a document, and their numbers in 4.

    A context manager. `length` documents are kept of what an earlier run left in `folder`.
    """

    def __init__(self, folder: Path, settings: NearDuplicateSettings, *, length: int = 0) -> None:
        self.settings = settings
        self.length = length
        self._paths = [folder / f"band-{band:02d}.u64" for band in range(settings.bands)]
        self._numbers_path = folder / "numbers.u32"
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            self._files = [stack.enter_context(path.open("ab")) for path in self._paths]
            self._numbers = stack.enter_context(self._numbers_path.open("ab"))
            for file in self._files:
                file.truncate(length * 8)
            self._numbers.truncate(length * 4)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, numbers: Sequence[int], bands: Hashes) -> None:
        """Add documents with their `signatures`, in any order of numbers."""
        filled = np.flatnonzero(bands[:, 0])
        if not len(filled):
            return
        self._numbers.write(np.array(numbers, np.uint32)[filled].tobytes())
        for band, file in enumerate(self._files):
            file.write(bands[filled, band].tobytes())
        self.length += len(filled)

    def flush(self) -> None:
        """Everything added is in the files; `length` continues from here."""
        for file in (*self._files, self._numbers):
            file.flush()

    def candidate_pairs(self) -> Hashes:
        """Pairs of documents that agree in a band, sorted, each `first << 32 | second` with first < second.

        Memory: 20 bytes for each of at most 4 million records of a band, and 8 a pair.
        """
        self.flush()
        found = _SortedSet()
        numbers = np.fromfile(self._numbers_path, np.uint32)
        slices = -(-len(numbers) // _RECORDS)
        edges = [(2**64 * i) // max(slices, 1) for i in range(1, slices)]
        for path in self._paths:
            for i in range(slices):
                low = np.uint64(edges[i - 1] if i else 0)
                high = np.uint64(edges[i] - 1 if i < slices - 1 else 2**64 - 1)
                for pairs in _bucket_pairs(*_records(path, numbers, low, high)):
                    found.add(pairs)
        return found.values()


class _SortedSet:
    """Distinct 64-bit values, merged in large steps."""

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.uint64)
        self._pending: list[Hashes] = []
        self._count = 0

    def add(self, values: Hashes) -> None:
        self._pending.append(values)
        self._count += len(values)
        if self._count > _RECORDS:
            self.values()

    def values(self) -> Hashes:
        self._sorted = np.unique(np.concatenate([self._sorted, *self._pending]))
        self._pending, self._count = [], 0
        return self._sorted


def _records(path: Path, numbers: Numbers, low: np.uint64, high: np.uint64) -> tuple[Hashes, Numbers]:
    """(hashes, numbers) of the records of a band file with low <= hash <= high, sorted."""
    hashes: list[Hashes] = []
    places: list[Numbers] = []
    with path.open("rb") as file:
        for start in range(0, len(numbers), _RECORDS):
            part = np.fromfile(file, np.uint64, min(_RECORDS, len(numbers) - start))
            inside = np.flatnonzero((part >= low) & (part <= high))
            hashes.append(part[inside])
            places.append(numbers[start + inside])
    all_hashes, all_numbers = np.concatenate(hashes), np.concatenate(places)
    order = np.lexsort((all_numbers, all_hashes))
    return all_hashes[order], all_numbers[order]


def _bucket_pairs(hashes: Hashes, numbers: Numbers) -> Iterable[Hashes]:
    """Pairs within runs of equal hashes: each with the `_NEIGHBOURS` before it and with the first."""
    if not len(hashes):
        return
    wide = numbers.astype(np.uint64)
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
    lengths = np.diff(np.append(starts, len(hashes)))
    first_of = np.repeat(starts, lengths)
    later = np.flatnonzero(first_of != np.arange(len(hashes)))
    yield wide[first_of[later]] << np.uint64(32) | wide[later]
    for back in range(1, _NEIGHBOURS + 1):
        near = later[later - back >= first_of[later]]
        yield wide[near - back] << np.uint64(32) | wide[near]


def _minhash() -> Any:
    """rensa's MinHash class."""
    try:
        import rensa
    except ImportError as error:
        raise missing_extra("rensa") from error
    return rensa.RMinHash
