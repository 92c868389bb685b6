"""Where a document repeats an item of an evaluation set, word for word or with one word of difference.

A run of `least_words` words (13, as in Brown et al., "Language Models are Few-Shot Learners", 2020, appendix
C) that a document and an item share is an overlap, where one word may be replaced, added or missing. Two runs
that differ in one word share a run of half the length: six words. So every six words of the items are in a
table, and only where a document has such six words are the two texts compared to the left and to the right.

An item of 8 to 12 words must be in the document as a whole, without a difference; 8 are enough for the last
word sets, whose items are one sentence. Six words that more than ten items have in common are the set's own
formula ("assinale a alternativa correta") and start no comparison.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from ptbr_slm.data.decontamination.evaluation_sets import EvaluationItem
from ptbr_slm.data.word_hashes import Hashes, ngram_hashes, normalized_words, word_hashes

LEAST_WORDS = 13
SHORTEST_ITEM = 8
"""Words of the shortest item that is looked for."""
_ANCHOR = 6
"""Words that must be equal before two texts are compared: half of `LEAST_WORDS` without the odd one."""
_COMMON = 10
"""Items that may share an anchor."""
_FILTER_BITS = 24
_EXCERPT = 400
"""Characters of each text shown."""
SENTENCE_END = re.compile(r"\n+|(?<=[.!?…])[\"'”’»)\]]*[ \t]+(?![a-zà-ÿ])")
"""Where a sentence ends: at the end of a line, and after a full stop that no small letter follows."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Words that a document and an item share, with both texts for people to judge."""

    item: str
    """The set and the line: `enem.jsonl:17`."""
    item_text: str
    document_text: str
    words: int
    """Shared."""
    mismatches: int
    """0 or 1."""
    start: int
    """Characters start .. end of the document are the sentences that share words with the item."""
    end: int

    def record(self, source: str) -> dict[str, str | int]:
        """The overlap as a line of a report; `source` is the document's."""
        return {"source": source, **asdict(self)}


class EvaluationIndex:
    """The items of evaluation sets, ready to be looked for. It grows with the sets only.

    About 30 bytes a word of the sets, and a filter of 16 MiB that answers for nearly all of a document.
    A value that `pickle` can take to another process.
    """

    def __init__(self, items: Iterable[EvaluationItem], *, least_words: int = LEAST_WORDS) -> None:
        self.least_words = least_words
        self.too_short = 0
        """Items of fewer than `SHORTEST_ITEM` words, which are not looked for."""
        self.items: list[EvaluationItem] = []
        """Those that are, each text once."""
        self._words: list[list[int]] = []
        anchors: list[Hashes] = []
        seen: set[bytes] = set()
        for item in items:
            normalized = b" ".join(normalized_words(item.text).split())
            if normalized in seen:
                continue
            seen.add(normalized)
            hashes = word_hashes(normalized)
            if len(hashes) < SHORTEST_ITEM:
                self.too_short += 1
                continue
            self.items.append(item)
            self._words.append(hashes.tolist())
            anchors.append(ngram_hashes(hashes, _ANCHOR))
        self._index(anchors)

    def search(self, text: str) -> list[Overlap]:
        """Every overlap of a document with the items, in the order of the document."""
        hashes = word_hashes(normalized_words(text))
        places = self._anchors_of(hashes)
        if not places:
            return []
        words: list[int] = hashes.tolist()
        covered: dict[int, int] = {}
        found: list[tuple[_Run, int]] = []
        for place, row in places:
            item = int(self._item_of[row])
            if place < covered.get(item, 0):
                continue
            run = _longest_run(words, place, self._words[item], int(self._place_of[row]))
            length = len(self._words[item])
            if run.words >= self.least_words if length >= self.least_words else run.shared >= length:
                covered[item] = run.end
                found.append((run, item))
        sentences = _Sentences(text) if found else None
        return [] if sentences is None else [self._overlap(run, item, sentences) for run, item in found]

    def _index(self, anchors: list[Hashes]) -> None:
        counts = [len(hashes) for hashes in anchors]
        owners = np.repeat(np.arange(len(anchors), dtype=np.uint32), counts)
        places = np.concatenate([np.arange(n, dtype=np.uint32) for n in counts] or [np.empty(0, np.uint32)])
        hashes = np.concatenate([*anchors, np.empty(0, np.uint64)])
        order = np.lexsort((places, owners, hashes))
        hashes, owners, places = hashes[order], owners[order], places[order]
        first_of_item = np.ones(len(hashes), bool)
        first_of_item[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
        _, which = np.unique(hashes, return_inverse=True)
        rare = np.bincount(which, weights=first_of_item)[which] <= _COMMON
        self._hashes, self._item_of, self._place_of = hashes[rare], owners[rare], places[rare]
        self._filter = np.zeros(1 << _FILTER_BITS, bool)
        self._filter[self._hashes >> np.uint64(64 - _FILTER_BITS)] = True

    def _anchors_of(self, hashes: Hashes) -> list[tuple[int, int]]:
        """(place in the document, row of the table) for every anchor that the document has."""
        anchors = ngram_hashes(hashes, _ANCHOR)
        likely = np.flatnonzero(self._filter[anchors >> np.uint64(64 - _FILTER_BITS)])
        firsts = np.searchsorted(self._hashes, anchors[likely], "left")
        ends = np.searchsorted(self._hashes, anchors[likely], "right")
        return [
            (place, row)
            for place, first, end in zip(likely.tolist(), firsts.tolist(), ends.tolist(), strict=True)
            for row in range(first, end)
        ]

    def _overlap(self, run: _Run, item: int, sentences: _Sentences) -> Overlap:
        start, end = sentences.span(run.start, run.end)
        return Overlap(
            item=self.items[item].source,
            item_text=_excerpt(self.items[item].text, run.item_start, run.item_end),
            document_text=sentences.excerpt(run.start, run.end),
            words=run.shared,
            mismatches=run.mismatches,
            start=start,
            end=end,
        )


@dataclass(frozen=True, slots=True)
class _Run:
    """Words start .. end of the document, item_start .. item_end of the item, equal but for `mismatches`."""

    start: int
    end: int
    item_start: int
    item_end: int
    shared: int
    mismatches: int

    @property
    def words(self) -> int:
        return self.shared + self.mismatches


def _longest_run(document: list[int], at: int, item: list[int], item_at: int) -> _Run:
    """The longest run around an anchor, with a mismatch on one of its two sides at most."""
    left = [_extent(document, at - 1, item, item_at - 1, -1, mismatch) for mismatch in (False, True)]
    end, item_end = at + _ANCHOR, item_at + _ANCHOR
    right = [_extent(document, end, item, item_end, 1, mismatch) for mismatch in (False, True)]
    runs = []
    for i, j in ((0, 0), (1, 0), (0, 1)):
        (back, item_back, shared_left), (forward, item_forward, shared_right) = left[i], right[j]
        shared = shared_left + _ANCHOR + shared_right
        runs.append(
            _Run(at - back, end + forward, item_at - item_back, item_end + item_forward, shared, i + j)
        )
    return max(runs, key=lambda run: (run.shared, -run.mismatches))


def _extent(
    document: list[int], at: int, item: list[int], item_at: int, step: int, mismatch: bool
) -> tuple[int, int, int]:
    """(document words, item words, shared words) from here in one direction.

    mismatch: go on after one word that is replaced, added or missing, whichever leads further.
    """
    equal = _equal(document, at, item, item_at, step)
    best = (equal, equal, equal)
    if mismatch:
        for extra, item_extra in ((1, 1), (1, 0), (0, 1)):
            beyond = _equal(
                document, at + step * (equal + extra), item, item_at + step * (equal + item_extra), step
            )
            if beyond and equal + beyond > best[2]:
                best = (equal + extra + beyond, equal + item_extra + beyond, equal + beyond)
    return best


def _equal(document: list[int], at: int, item: list[int], item_at: int, step: int) -> int:
    count = 0
    while 0 <= at < len(document) and 0 <= item_at < len(item) and document[at] == item[item_at]:
        count, at, item_at = count + 1, at + step, item_at + step
    return count


class _Sentences:
    """In which sentence of a text each of its words is; a sentence ends with its line, too."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._begins = [0, *(found.end() for found in SENTENCE_END.finditer(text))]
        ends = [*self._begins[1:], len(text)]
        counts = [
            len(word_hashes(normalized_words(text[begin:end])))
            for begin, end in zip(self._begins, ends, strict=True)
        ]
        self._words: npt.NDArray[np.int64] = np.cumsum([0, *counts])

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The characters of all sentences that have a word of start .. end."""
        first, last = self._of_word(start), self._of_word(end - 1)
        return self._begins[first], ([*self._begins, len(self._text)])[last + 1]

    def excerpt(self, start: int, end: int) -> str:
        """The words start .. end as they are written, and not more of them than an excerpt has."""
        begin, stop = self.span(start, end)
        before = int(self._words[self._of_word(start)])
        return _excerpt(self._text[begin:stop], start - before, end - before)

    def _of_word(self, word: int) -> int:
        return bisect_right(self._words, word) - 1


def _excerpt(text: str, start: int, end: int) -> str:
    """The words start .. end of `text` as they are written, `_EXCERPT` characters at most."""
    count, begin, at = 0, 0, 0
    for token in text.split():
        at = text.index(token, at)
        words = len(normalized_words(token).split())
        if count <= start < count + words:
            begin = at
        count, at = count + words, at + len(token)
        if count >= end:
            break
    return text[begin : min(at, begin + _EXCERPT)]
