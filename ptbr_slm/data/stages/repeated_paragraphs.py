"""Paragraphs that a site prints on every page: kept in its first documents, taken out of the later ones.

CCNet (Wenzek et al. 2020, arXiv:1911.00359, section 3.1) and Dolma (Soldaini et al. 2024, arXiv:2402.00159)
take repeated paragraphs out over documents, the latter with a Bloom filter. Memory is fixed here too: two
filters of one size, of which the older is emptied when the newer is full, so that what was read long ago is
forgotten and false positives stay rare.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import BinaryIO

from ptbr_slm.data.document import Document
from ptbr_slm.data.stages.stage import Dropped

MIN_CHARACTERS = 60
"""Shorter paragraphs are headings and dialogue, which books share."""
MEMORY = 64 << 20
"""Bytes of the filters, together: each remembers at least the last 5.6 million different paragraphs."""
COPIES = 2
"""Documents that keep a paragraph: quotations and laws are repeated once or twice in good text."""

_BITS_PER_ENTRY = 24
_HASHES = 6
"""One paragraph in 8,000 is found falsely in a full filter: (1 - exp(-6 / 24)) ** 6."""
_DATE = re.compile(
    r"\b(?:\d{1,2}([/.-])\d{1,2}\1\d{4}|\d{1,2}/\d{1,2}/\d{2}|\d{4}([/-])\d{1,2}\2\d{1,2}"
    r"|\d{1,2}(?:[:h]\d{2})+(?:min)?)\b"
)
"""A date or time of day in figures: `12/03/2021`, `2021-03-12`, `14h05`, `14:05:59`."""


class RecentlySeen:
    """A set of 64-bit hashes in `memory` bytes that forgets the oldest; the last `capacity` are there."""

    def __init__(self, memory: int) -> None:
        self._bits = max(memory // 2, 8) * 8
        self.capacity = max(self._bits // _BITS_PER_ENTRY, 1)
        self._newer = bytearray(self._bits // 8)
        self._older = bytearray(self._bits // 8)
        self._count = 0

    def add(self, identity: int) -> bool:
        """Remember `identity`; False where it was known already."""
        step = (identity >> 32) | 1
        places = [(identity + number * step) % self._bits for number in range(_HASHES)]
        known = self._has(self._newer, places)
        if known or self._has(self._older, places):
            if not known:
                self._remember(places)  # still in use: it outlives the older filter
            return False
        self._remember(places)
        return True

    def save(self, file: BinaryIO) -> None:
        """Write all that it knows."""
        file.write(self._count.to_bytes(8, "little"))
        file.write(self._newer)
        file.write(self._older)

    def load(self, file: BinaryIO) -> None:
        """Read what `save` of one of the same memory wrote."""
        size = len(self._newer)
        self._count = int.from_bytes(file.read(8), "little")
        self._newer, self._older = bytearray(file.read(size)), bytearray(file.read(size))

    def _remember(self, places: list[int]) -> None:
        for place in places:
            self._newer[place >> 3] |= 1 << (place & 7)
        self._count += 1
        if self._count >= self.capacity:
            self._older, self._newer = self._newer, bytearray(len(self._newer))
            self._count = 0

    @staticmethod
    def _has(bits: bytearray, places: list[int]) -> bool:
        return all(bits[place >> 3] >> (place & 7) & 1 for place in places)


class RepeatedParagraphs:
    """Takes paragraphs out that `copies` earlier documents held; the order of documents matters.

    A paragraph is a line of at least MIN_CHARACTERS. Case, spaces, and dates and times in figures do not
    matter; other figures do (`a taxa foi a 17,75 %` is not `a taxa foi a 18,25 %`). What a document repeats
    inside itself counts once and stays.
    """

    def __init__(self, copies: int = COPIES, memory: int = MEMORY) -> None:
        self._seen = [RecentlySeen(memory // copies) for _ in range(copies)]

    def __call__(self, document: Document) -> Document | Dropped:
        """The document without those paragraphs; dropped as `only_repeated_paragraphs` where none is left."""
        answers: dict[int, bool] = {}
        kept = []
        lines = document.text.split("\n")
        for line in lines:
            if len(line) < MIN_CHARACTERS:
                kept.append(line)
                continue
            identity = _identity(line)
            if identity not in answers:
                answers[identity] = any(seen.add(identity) for seen in self._seen)
            if answers[identity]:
                kept.append(line)
        if len(kept) == len(lines):
            return document
        text = re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip("\n")
        if not text.strip():
            return Dropped("only_repeated_paragraphs")
        return document.repaired(text, "repeated_paragraphs")

    def save(self, file: BinaryIO) -> None:
        """Write what is known, about MEMORY bytes, so that a run that was cut off gives the same answers."""
        for seen in self._seen:
            seen.save(file)

    def load(self, file: BinaryIO) -> None:
        """Read what `save` of an equal object wrote."""
        for seen in self._seen:
            seen.load(file)


def _identity(line: str) -> int:
    normalized = _DATE.sub("0", " ".join(line.lower().split()))
    return int.from_bytes(hashlib.blake2b(normalized.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True, slots=True)
class RemoveRepeatedParagraphs:
    """A cleaning stage that asks the pipeline for `RepeatedParagraphs`, which runs after all cleaning.

    A document alone repeats nothing, so that the stage itself changes nothing.
    """

    name: str = "repeated_paragraphs"

    def __call__(self, document: Document) -> Document | Dropped:
        """The same document."""
        return document
