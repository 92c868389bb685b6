"""The second check of the pairs: form, balance, and the rules of `rules.py`, on the finished strings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ptbr_slm.eval.grammar.rules import RULES, cannot_tell
from ptbr_slm.eval.grammar.suite import PhenomenonPairs


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a pair, what differs being one "word" (of several words where the order differs)."""

    good: tuple[str, ...]
    bad: tuple[str, ...]
    at: int
    """Index of what differs."""

    @property
    def forms(self) -> tuple[str, str]:
        """What differs, in the good and in the bad member."""
        return self.good[self.at], self.bad[self.at]


def faults(phenomenon: PhenomenonPairs) -> list[str]:
    """What is wrong with the pairs of a phenomenon, a line each, with the pair's id."""
    found: list[str] = []
    rule = RULES.get(phenomenon.name, cannot_tell)
    swapped: Counter[tuple[str, str]] = Counter()
    sentences: Counter[str] = Counter()
    for pair in phenomenon.pairs:
        sentences.update((pair.good, pair.bad))
        found += [f"{pair.id}: {text}" for text in (*_shape(pair.good), *_shape(pair.bad))]
        words = split_pair(pair.good, pair.bad)
        good, bad = words.forms
        swapped[good, bad] += 1
        swapped[bad, good] -= 1
        if phenomenon.name not in OF_SEVERAL_WORDS and " " in good + bad:
            found.append(f"{pair.id}: the members differ in more than one word")
        if phenomenon.name in REORDERED and sorted(good.split()) != sorted(bad.split()):
            found.append(f"{pair.id}: the members have different words")
        verdicts = rule(words.good, words.at, good), rule(words.bad, words.at, bad)
        if verdicts != (True, False):
            found.append(f"{pair.id}: the rule says {verdicts}: {pair.good} / {pair.bad}")
    if phenomenon.name not in UNBALANCED | REORDERED:
        found += [
            f"{phenomenon.name}: {forms} not balanced ({n:+d})" for forms, n in swapped.items() if n > 0
        ]
    found += [f"{phenomenon.name}: twice: {text}" for text, n in sentences.items() if n > 1]
    return found


REORDERED = frozenset({"ordem_determinante"})
"""Phenomena whose members have the same words in another order."""
UNBALANCED = frozenset({"proclise_negacao"})
"""Phenomena in which a form is right more often than wrong: the bad member has a hyphen more."""
OF_SEVERAL_WORDS = REORDERED | UNBALANCED | {"contracao", "enclise_inicial"}
"""Phenomena whose members differ in more than one word."""


def split_pair(good: str, bad: str) -> Words:
    """The words of both members, with all between the first and the last difference as one."""
    left, right = _words(good), _words(bad)
    start = next(index for index, (a, b) in enumerate(zip(left, right, strict=False)) if a != b)
    end = next(index for index, (a, b) in enumerate(zip(left[::-1], right[::-1], strict=False)) if a != b)
    end = min(end, len(left) - start, len(right) - start)

    def joined(words: tuple[str, ...]) -> tuple[str, ...]:
        stop = len(words) - end
        return (*words[:start], " ".join(words[start:stop]), *words[stop:])

    return Words(joined(left), joined(right), start)


def _words(text: str) -> tuple[str, ...]:
    """Lower-cased at the beginning; a hyphen begins a word: "disse-me" is "disse", "-me"."""
    text = (text[0].lower() + text[1:]).replace("-", " -")
    return tuple(word.strip(",.?!") for word in text.split())


def _shape(text: str) -> Iterable[str]:
    if not text[0].isupper() or text[-1] not in ".?!" or text != " ".join(text.split()) or "_" in text:
        yield f"not a sentence as written: {text!r}"
