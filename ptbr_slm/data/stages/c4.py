"""C4's rules of lines, which take lines out of a page, and those of C4 and mC4 that judge the page left.

C4: Raffel et al. 2020, arXiv:1910.10683, section 2.2, and `c4_utils.py` of tensorflow/datasets. mC4: Xue et
al. 2021, arXiv:2010.11934, section 3.1. The rules are those of `pipeline/filters/c4_filters.py` of
datatrove 0.10, in its order. No preset has them: FineWeb2 turns them off for every language
(`configs/*.yml`). A mixture file names them one by one, or all as `c4`.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import ClassVar

from ptbr_slm.data.document import Document
from ptbr_slm.data.stages.rules import FigureRule
from ptbr_slm.data.stages.stage import Dropped, Stage
from ptbr_slm.data.stages.words import split_words

_MANY_NEWLINES = re.compile(r"\n{3,}")


@dataclass(frozen=True, slots=True)
class LineRule:
    """Takes lines out of a document; blank lines stay. A page without any line left is dropped."""

    name: ClassVar[str]
    """Also the key of `document.REPAIRS` that counts the documents with lines taken out."""

    def kept(self, line: str) -> str | None:
        """The line, changed perhaps, or None where it goes."""
        raise NotImplementedError

    def __call__(self, document: Document) -> Document | Dropped:
        """The document itself where nothing goes, or without those lines; `no_lines` where none is left."""
        lines = document.text.split("\n")
        kept = [line if not line or line.isspace() else self.kept(line) for line in lines]
        if kept == lines:
            return document
        text = "\n".join(line for line in kept if line is not None)
        text = _MANY_NEWLINES.sub("\n\n", text).strip("\n")
        return document.repaired(text, self.name) if text.strip() else Dropped("no_lines")


@dataclass(frozen=True, slots=True)
class LongWordLines(LineRule):
    """Lines with a word of more than 1,000 characters: encoded files."""

    name = "long_word_lines"
    most: int = 1_000

    def kept(self, line: str) -> str | None:
        """The line, where all its words are short enough."""
        too_long = len(line) > self.most and any(len(word) > self.most for word in line.split())
        return None if too_long else line


@dataclass(frozen=True, slots=True)
class FewWordLines(LineRule):
    """Lines of fewer than 3 words. datatrove and C4's code 3; the paper's first version 5."""

    name = "few_word_lines"
    least: int = 3

    def kept(self, line: str) -> str | None:
        """The line, where it has words enough."""
        return line if len(line.split(maxsplit=self.least)) >= self.least else None


@dataclass(frozen=True, slots=True)
class Citations(LineRule):
    """Wikipedia's marks in a line: `[12]`, `[edit]`, `[citation needed]`, and the two in Portuguese."""

    name = "citations"
    _MARK: ClassVar[re.Pattern[str]] = re.compile(
        r"\[\d*]|\[edit]|\[citation needed]|\[editar]|\[carece de fontes\??]"
    )

    def kept(self, line: str) -> str:
        """The line without marks."""
        return self._MARK.sub("", line) if "[" in line else line


@dataclass(frozen=True, slots=True)
class UnendedLines(LineRule):
    """Lines that do not end in `.`, `?`, `!`, `"` or `'`, or end in `...`. As in C4, `”` does not end one."""

    name = "unended_lines"
    ENDS: ClassVar[tuple[str, ...]] = (".", "?", "!", '"', "'")

    def kept(self, line: str) -> str | None:
        """The line, where it is ended."""
        return line if line.endswith(self.ENDS) and not line.endswith("...") else None


@dataclass(frozen=True, slots=True)
class JavascriptLines(LineRule):
    """Lines with the word Javascript: they ask the reader to turn it on."""

    name = "javascript_lines"

    def kept(self, line: str) -> str | None:
        """The line, where it has not the word. One with `lorem ipsum` stays: C4 drops its page before."""
        lower = line.lower()
        return None if "javascript" in lower and _LOREM_IPSUM not in lower else line


@dataclass(frozen=True, slots=True)
class PolicyLines(LineRule):
    """Lines about terms of use and cookies, in English; `remove_boilerplate` knows Portuguese ones."""

    name = "policy_lines"
    PHRASES: ClassVar[tuple[str, ...]] = (
        "terms of use",
        "privacy policy",
        "cookie policy",
        "uses cookies",
        "use of cookies",
        "use cookies",
    )

    def kept(self, line: str) -> str | None:
        """The line, where it has no such phrase. One with `lorem ipsum` or `{` stays: C4 drops its page."""
        lower = line.lower()
        if not any(phrase in lower for phrase in self.PHRASES):
            return line
        return line if _LOREM_IPSUM in lower or "{" in line else None


_LOREM_IPSUM = "lorem ipsum"


@dataclass(frozen=True, slots=True)
class LoremIpsum(FigureRule):
    """The text of printers' samples. C4 0."""

    figure = "lorem_ipsum"
    above = "lorem_ipsum"
    most: float = 0


@dataclass(frozen=True, slots=True)
class CurlyBrackets(FigureRule):
    """`{` in a page: it shows code. C4 0; a page of documentation has some."""

    figure = "curly_brackets"
    above = "curly_brackets"
    most: float = 0


@dataclass(frozen=True, slots=True)
class Sentences(FigureRule):
    """Sentences in a page, those of each line added up. C4 5."""

    figure = "sentences"
    below = "few_sentences"
    least: float = 5

    def measured(self, document: Document) -> float:
        """The stored figure, or the sentences in all lines."""
        stored = document.attributes.get(self.figure)
        return sum(map(count_sentences, document.text.split("\n"))) if stored is None else float(stored)


@dataclass(frozen=True, slots=True)
class LongLines(FigureRule):
    """Lines of at least 200 characters in a page. mC4 3."""

    figure = "long_lines"
    below = "few_long_lines"
    least: float = 3


_SENTENCE_ENDS = frozenset(".!?‼‽⁇⁈⁉⸮⸼。．！？｡")
"""Of the tokens at which spaCy's `sentencizer` ends a sentence, those of Latin and Asian scripts."""


def count_sentences(line: str) -> int:
    """Sentences of a line as spaCy's `sentencizer` parts them: a word after such a token begins one."""
    tokens = split_words(line)
    count, ended = int(bool(tokens)), False
    for token in tokens:
        if token in _SENTENCE_ENDS:
            ended = True
        elif ended and not _is_punctuation(token):
            count, ended = count + 1, False
    return count


def _is_punctuation(token: str) -> bool:
    """Whether Unicode calls all characters of `token` punctuation, as spaCy's `is_punct` asks."""
    return all(unicodedata.category(character)[0] == "P" for character in token)


def c4() -> tuple[Stage, ...]:
    """The rules of C4 in datatrove's order, which together keep and drop what its block does."""
    return (*c4_lines(), LoremIpsum(), CurlyBrackets(), Sentences())


def c4_lines() -> tuple[LineRule, ...]:
    """The rules of lines. `FewWordLines` counts words with their citations, as datatrove does."""
    return LongWordLines(), FewWordLines(), Citations(), UnendedLines(), JavascriptLines(), PolicyLines()
