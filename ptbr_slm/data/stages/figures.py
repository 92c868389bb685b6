"""What the quality rules look at: lines, words and repetitions of a text, each as one number.

`Figures` stores the numbers as attributes of the document, once. A rule (`rules.py`) then only compares, and
a new threshold needs no second reading. Shares are between 0 and 1. The definitions are those of datatrove
0.10, which FineWeb2 ran: `pipeline/filters/gopher_quality_filter.py`, `gopher_repetition_filter.py` and
`fineweb_quality_filter.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np
import numpy.typing as npt

from ptbr_slm.data.document import Document
from ptbr_slm.data.stages.words import split_words

STOP_WORDS = frozenset(
    ["de", "a", "e", "o", "em", "do", "da", "que", "um", "no", "uma", "com", "para", "na", "é", "foi"]
)
"""FineWeb2, `configs/por_Latn.yml` at d0defb2."""
TERMINAL = (".", "!", "?", "‼", "‽", "⁇", "⁈", "⁉", "⸮", "⸼", "⹓", "⹔", "。", "｡", "！", "．", "？")
"""What ends a line: datatrove's TERMINAL_PUNCTUATION, without other scripts. A closing quote does not."""
SHORT_LINE = 30
"""Characters of the longest line that counts as short (FineWeb)."""
LONG_LINE = 200
"""Characters of the shortest line that counts as a paragraph (mC4)."""

_PUNCTUATION = frozenset(
    "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
    + "".join(TERMINAL)
).union(map(chr, (*range(9), *range(11, 32), *range(127, 160))))
"""A token of these alone is no word: datatrove's PUNCTUATION_SET."""
_NEWLINES = re.compile("\n+")
_LETTER = re.compile(r"[^\W\d_]")


class Text:
    """A text, and its lines and words once a figure asks for them."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def tokens(self) -> list[str]:
        """Words and punctuation marks."""
        return split_words(self.text)

    @cached_property
    def counts(self) -> Counter[str]:
        """Occurrences of each token: a text has a third as many different ones."""
        return Counter(self.tokens)

    @cached_property
    def words(self) -> int:
        """Tokens that are not punctuation alone."""
        return self._words_and_letters[0]

    @cached_property
    def letters(self) -> int:
        """Characters of the words."""
        return self._words_and_letters[1]

    @cached_property
    def _words_and_letters(self) -> tuple[int, int]:
        words = letters = 0
        for token, count in self.counts.items():
            if token.isalnum() or not _PUNCTUATION.issuperset(token):
                words += count
                letters += count * len(token)
        return words, letters

    @cached_property
    def lines(self) -> list[str]:
        """The lines as `str.splitlines` cuts them."""
        return self.text.splitlines()

    @cached_property
    def filled_lines(self) -> list[str]:
        """The lines between `\\n` that hold more than spaces."""
        return [line for line in self.text.split("\n") if line.strip()]

    @cached_property
    def grams(self) -> Repetitions:
        """Repeated sequences of tokens."""
        return Repetitions(self.tokens, len(self.text))


class Repetitions:
    """Sequences of 2 to 10 tokens that a text repeats.

    Gopher, table A1 (Rae et al. 2021, arXiv:2112.11446). A sequence of n tokens is numbered by its first
    n - 1 and its last, so that no hash is needed; a longer sequence is sought only
    where the shorter one is repeated.
    """

    MAX_N = 10

    def __init__(self, tokens: Sequence[str], characters: int) -> None:
        self._characters = characters
        self._count = len(tokens)
        numbers = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
        self._vocabulary = max(len(numbers), 1)
        self._ids = np.fromiter(map(numbers.__getitem__, tokens), np.int64, len(tokens))
        self._ends = np.zeros(len(tokens) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, tokens), np.int64, len(tokens)), out=self._ends[1:])

    @cached_property
    def _levels(self) -> dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """n -> (places, ascending; number of the sequence there) of the n-grams that occur twice or more."""
        places = np.arange(self._count)
        numbers = self._ids
        levels = {}
        for n in range(2, self.MAX_N + 1):
            fits = places + n <= self._count
            places = places[fits]
            keys = numbers[fits] * self._vocabulary + self._ids[places + n - 1]
            _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
            repeated = counts[inverse] > 1
            places, numbers = places[repeated], inverse[repeated]
            levels[n] = (places, numbers)
        return levels

    def top_share(self, n: int) -> float:
        """Share of characters in the most frequent n-gram, all occurrences, the spaces inside counted."""
        if self._count < n:
            return 0.0
        places, numbers = self._levels[n]
        place, count = 0, 1
        if len(places):
            _, first, counts = np.unique(numbers, return_index=True, return_counts=True)
            count = int(counts.max())
            place = int(places[first[counts == count].min()])
        return (int(self._ends[place + n] - self._ends[place]) + n - 1) * count / self._characters

    def repeated_share(self, n: int) -> float:
        """Share of characters in n-grams that occurred before, from left to right without overlap."""
        places, numbers = self._levels[n]
        total = end = 0
        seen: set[int] = set()
        for place, number in zip(places.tolist(), numbers.tolist(), strict=True):
            if place < end:
                continue
            if number in seen:
                total += int(self._ends[place + n] - self._ends[place])
                end = place + n
            else:
                seen.add(number)
        return total / max(self._characters, 1)


def _share(lines: Sequence[str], wanted: Callable[[str], bool]) -> float:
    return sum(map(wanted, lines)) / max(len(lines), 1)


def _per_token(count: int, text: Text) -> float:
    return count / max(len(text.tokens), 1)


def _alphabetic_tokens(text: Text) -> float:
    found = sum(
        count for token, count in text.counts.items() if token.isalpha() or _LETTER.search(token) is not None
    )
    return found / max(len(text.tokens), 1)


def _repeated_lines(text: Text) -> float:
    lines = _NEWLINES.split(text.text)
    return (len(lines) - len(set(lines))) / len(lines)


def _repeated_characters(text: Text) -> float:
    """Characters of the lines that occurred before; empty lines do not count."""
    lines = text.filled_lines
    repeated = sum(map(len, lines)) - sum(map(len, set(lines)))
    return repeated / max(len(text.text) - text.text.count("\n"), 1)


FIGURES: dict[str, Callable[[Text], float]] = {
    "words": lambda text: text.words,
    "mean_word_length": lambda text: text.letters / max(text.words, 1),
    "alphabetic_tokens": _alphabetic_tokens,
    "stop_words": lambda text: len(STOP_WORDS & text.counts.keys()),
    "hashes_per_token": lambda text: _per_token(text.text.count("#"), text),
    "ellipses_per_token": lambda text: _per_token(text.text.count("...") + text.text.count("…"), text),
    "bullet_lines": lambda text: _share(text.lines, lambda line: line.lstrip().startswith(("•", "-"))),
    "ellipsis_lines": lambda text: _share(text.lines, lambda line: line.rstrip().endswith(("...", "…"))),
    "ended_lines": lambda text: _share(text.filled_lines, lambda line: line.endswith(TERMINAL)),
    "short_lines": lambda text: _share(text.filled_lines, lambda line: len(line) <= SHORT_LINE),
    "newlines_per_token": lambda text: _per_token(text.text.count("\n"), text),
    "repeated_lines": _repeated_lines,
    "repeated_characters": _repeated_characters,
    "curly_brackets": lambda text: text.text.count("{"),
    "lorem_ipsum": lambda text: text.text.lower().count("lorem ipsum"),
    "long_lines": lambda text: sum(len(line) >= LONG_LINE for line in text.text.split("\n")),
    "replacement_characters": lambda text: text.text.count("\ufffd") / max(len(text.text), 1),
    **{f"top_{n}_gram": partial(lambda n, text: text.grams.top_share(n), n) for n in (2, 3, 4)},
    **{f"repeated_{n}_grams": partial(lambda n, text: text.grams.repeated_share(n), n) for n in range(5, 11)},
}
"""Name of the attribute -> how it is measured."""


@lru_cache(maxsize=1)
def _opened(text: str) -> Text:
    """The text that the last rule looked at, for the next one."""
    return Text(text)


def measure(name: str, document: Document) -> float:
    """The figure `name` (a key of FIGURES): the attribute of `document`, or measured where it has none."""
    stored = document.attributes.get(name)
    return float(stored) if stored is not None else float(FIGURES[name](_opened(document.text)))


@dataclass(frozen=True, slots=True)
class Figures:
    """Stores figures as attributes, so that rules and the audit need the text no more."""

    names: tuple[str, ...] = tuple(FIGURES)
    """Keys of FIGURES."""
    name: str = "figures"

    def __call__(self, document: Document) -> Document:
        """`document` with the attributes in `names`."""
        text = Text(document.text)
        return document.with_attributes(**{name: float(FIGURES[name](text)) for name in self.names})
