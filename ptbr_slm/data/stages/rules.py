"""Rules of web text: each compares one figure of a document with a threshold of its own.

The thresholds are those of FineWeb2 for Portuguese: `configs/por_Latn.yml` and `fineweb-2-pipeline.py` of
huggingface/fineweb-2 at d0defb2 (Penedo et al. 2025, arXiv:2506.20920); "default" marks what that pipeline
leaves at the default of datatrove 0.10. They were tuned on web pages. On novels, laws and minutes the rule of
alphabetic tokens alone drops 10 to 60 % of good documents: such sources want the preset `curated`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from ptbr_slm.data.document import Document
from ptbr_slm.data.stages.figures import measure
from ptbr_slm.data.stages.stage import Dropped, Stage

EXCESSIVE_SHARE = 0.2
"""A rule that drops more of a source than this was made for other text."""
NO_RULE = frozenset({"not_sampled", "duplicate", "near_duplicate", "contaminated", "other_variety"})
"""Reasons that no rule of cleaning decides."""


@dataclass(frozen=True, slots=True)
class FigureRule:
    """Drops a document whose figure is below `least` or above `most`."""

    figure: ClassVar[str]
    """A key of `figures.FIGURES`."""
    below: ClassVar[str] = ""
    """The reason (a key of `document.REASONS`) where the figure is too small."""
    above: ClassVar[str] = ""
    """The reason where it is too large."""
    least: float = 0.0
    most: float = math.inf

    @property
    def name(self) -> str:
        """The name of the figure."""
        return self.figure

    def measured(self, document: Document) -> float:
        """The figure, stored or measured now."""
        return measure(self.name, document)

    def __call__(self, document: Document) -> Document | Dropped:
        """The document, or the reason with the figure and the threshold."""
        value = self.measured(document)
        if value < self.least:
            return Dropped(self.below, {self.name: value, "least": self.least})
        if value > self.most:
            return Dropped(self.above, {self.name: value, "most": self.most})
        return document


# Gopher: repetition (Rae et al. 2021, arXiv:2112.11446, table A1)


@dataclass(frozen=True, slots=True)
class RepeatedLines(FigureRule):
    """Share of lines that repeat an earlier line. Gopher 0.30; FineWeb2 0.287."""

    figure = "repeated_lines"
    above = "repeated_lines"
    most: float = 0.287


@dataclass(frozen=True, slots=True)
class TopGram(FigureRule):
    """Share of characters in the most frequent sequence of `n` tokens, 2 to 4.

    Gopher 0.20, 0.18, 0.16; FineWeb2 0.371, 0.191, 0.163.
    """

    above = "top_gram"
    n: int = 2

    @property
    def name(self) -> str:
        """The name of the figure."""
        return f"top_{self.n}_gram"


@dataclass(frozen=True, slots=True)
class RepeatedGrams(FigureRule):
    """Share of characters in sequences of `n` tokens, 5 to 10, that occurred before.

    Gopher 0.15 down to 0.10; FineWeb2 0.163, 0.153, 0.141, 0.130, 0.119, 0.108.
    """

    above = "repeated_grams"
    n: int = 5

    @property
    def name(self) -> str:
        """The name of the figure."""
        return f"repeated_{self.n}_grams"


# FineWeb: lines (Penedo et al. 2024, arXiv:2406.17557, section 3.5)


@dataclass(frozen=True, slots=True)
class EndedLines(FigureRule):
    """Share of lines that end with final punctuation. FineWeb 0.12; FineWeb2 0.077."""

    figure = "ended_lines"
    below = "few_ended_lines"
    least: float = 0.077


@dataclass(frozen=True, slots=True)
class ShortLines(FigureRule):
    """Share of lines of at most 30 characters. FineWeb 0.67; FineWeb2 does without."""

    figure = "short_lines"
    above = "short_lines"
    most: float = 0.67


@dataclass(frozen=True, slots=True)
class RepeatedCharacters(FigureRule):
    """Share of characters in lines that repeat an earlier line. FineWeb 0.01; FineWeb2 0.1."""

    figure = "repeated_characters"
    above = "repeated_characters"
    most: float = 0.1


@dataclass(frozen=True, slots=True)
class NewlinesPerToken(FigureRule):
    """Line ends for each token: lists and menus have many. FineWeb 0.3; FineWeb2 0.186."""

    figure = "newlines_per_token"
    above = "many_newlines"
    most: float = 0.186


# Gopher: quality (Rae et al. 2021, section A.1.1)


@dataclass(frozen=True, slots=True)
class Words(FigureRule):
    """Words, punctuation not counted. Default 50 to 100,000: long novels go."""

    figure = "words"
    below = "few_words"
    above = "many_words"
    least: float = 50
    most: float = 100_000


@dataclass(frozen=True, slots=True)
class MeanWordLength(FigureRule):
    """Mean characters of a word. Gopher 3 to 10; FineWeb2 3 to 13."""

    figure = "mean_word_length"
    below = "short_words"
    above = "long_words"
    least: float = 3
    most: float = 13


@dataclass(frozen=True, slots=True)
class HashesPerToken(FigureRule):
    """`#` for each token. Default 0.1."""

    figure = "hashes_per_token"
    above = "many_hashes"
    most: float = 0.1


@dataclass(frozen=True, slots=True)
class EllipsesPerToken(FigureRule):
    """`...` and `…` for each token. Default 0.1."""

    figure = "ellipses_per_token"
    above = "many_ellipses"
    most: float = 0.1


@dataclass(frozen=True, slots=True)
class BulletLines(FigureRule):
    """Share of lines that begin with `•` or `-`. Default 0.9."""

    figure = "bullet_lines"
    above = "bullet_lines"
    most: float = 0.9


@dataclass(frozen=True, slots=True)
class EllipsisLines(FigureRule):
    """Share of lines that end with an ellipsis. Default 0.3."""

    figure = "ellipsis_lines"
    above = "ellipsis_lines"
    most: float = 0.3


@dataclass(frozen=True, slots=True)
class AlphabeticTokens(FigureRule):
    """Share of tokens, punctuation counted, with at least one letter. Gopher 0.8 of words; FineWeb2 0.814."""

    figure = "alphabetic_tokens"
    below = "few_letters"
    least: float = 0.814


@dataclass(frozen=True, slots=True)
class StopWords(FigureRule):
    """Distinct words of `word_numbers.STOP_WORDS`, in lower case. FineWeb2: 2 of 16."""

    figure = "stop_words"
    below = "few_stop_words"
    least: float = 2


# Others


@dataclass(frozen=True, slots=True)
class ReplacementCharacters(FigureRule):
    """Share of U+FFFD, which stands for a letter that is lost. A rule of our own: one in 500 characters."""

    figure = "replacement_characters"
    above = "replacement_characters"
    most: float = 0.002


def fineweb2() -> tuple[Stage, ...]:
    """The rules of FineWeb2 for Portuguese, in its order: repetition, lines, quality."""
    return (
        RepeatedLines(),
        *(TopGram(most=most, n=n) for n, most in ((2, 0.371), (3, 0.191), (4, 0.163))),
        *(
            RepeatedGrams(most=most, n=n)
            for n, most in ((5, 0.163), (6, 0.153), (7, 0.141), (8, 0.13), (9, 0.119), (10, 0.108))
        ),
        EndedLines(),
        RepeatedCharacters(),
        NewlinesPerToken(),
        Words(),
        MeanWordLength(),
        HashesPerToken(),
        EllipsesPerToken(),
        BulletLines(),
        EllipsisLines(),
        AlphabeticTokens(),
        StopWords(),
    )


class ExcessiveRule(NamedTuple):
    """A rule that drops too much of a source."""

    reason: str
    """A key of `document.REASONS`, or the name of a user's own stage."""
    dropped: int
    """Documents that it dropped."""
    share: float
    """Of the documents of the source."""


def excessive_rules(counts: Mapping[str, int], total: int) -> list[ExcessiveRule]:
    """The rules that drop over `EXCESSIVE_SHARE` of a source of `total` documents, the worst first.

    counts: reason -> documents dropped; copies, what weights leave out and the variety that nobody asked for
    are no rule's. One document alone is never too much.
    """
    rules = [
        ExcessiveRule(reason, count, count / max(total, 1))
        for reason, count in counts.items()
        if reason not in NO_RULE and count > 1
    ]
    return sorted((rule for rule in rules if rule.share > EXCESSIVE_SHARE), key=lambda rule: -rule.share)
