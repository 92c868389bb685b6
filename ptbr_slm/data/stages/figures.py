"""What the quality rules look at: lines, words and repetitions of a text, each as one number.

`Figures` stores the numbers as attributes of the document, once. A rule (`rules.py`) then only compares, and
a new threshold needs no second reading. Shares are between 0 and 1. The definitions are those of datatrove
0.10, which FineWeb2 ran: `pipeline/filters/gopher_quality_filter.py`, `gopher_repetition_filter.py` and
`fineweb_quality_filter.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np

from ptbr_slm.data.document import Document
from ptbr_slm.data.stages.repetitions import Repetitions
from ptbr_slm.data.stages.word_numbers import LETTERS, STOP, TERMINAL, WORD, WordNumbers, number_words

SHORT_LINE = 30
"""Characters of the longest line that counts as short (FineWeb)."""
LONG_LINE = 200
"""Characters of the shortest line that counts as a paragraph (mC4)."""

_NEWLINES = re.compile("\n+")


class Text:
    """A text, and its lines and words once a figure asks for them."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def tokens(self) -> WordNumbers:
        """Words and punctuation marks."""
        return number_words(self.text)

    @cached_property
    def words(self) -> int:
        """Tokens that are not punctuation alone."""
        return int(np.count_nonzero(self.tokens.kinds & WORD))

    @cached_property
    def letters(self) -> int:
        """Characters of the words."""
        return int(self.tokens.lengths[self.tokens.kinds & WORD > 0].sum())

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
        return Repetitions(self.tokens.numbers, self.tokens.lengths, len(self.text))


def _share(lines: Sequence[str], wanted: Callable[[str], bool]) -> float:
    return sum(map(wanted, lines)) / max(len(lines), 1)


def _per_token(count: int, text: Text) -> float:
    return count / max(len(text.tokens.numbers), 1)


def _alphabetic_tokens(text: Text) -> float:
    return _per_token(int(np.count_nonzero(text.tokens.kinds & LETTERS)), text)


def _stop_words(text: Text) -> int:
    """Different ones."""
    return len(np.unique(text.tokens.numbers[text.tokens.kinds & STOP > 0]))


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
    "stop_words": _stop_words,
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
