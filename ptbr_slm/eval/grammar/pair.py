"""What the suite is made of: registers, contrasts and phenomena."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from ptbr_slm.eval.grammar.lexicon import Draw

SLOT = "_"
"""Where a form goes in a frame."""


class Register(StrEnum):
    """For whom the bad member is wrong."""

    NEUTRAL = "neutro"
    """Wrong in all educated Brazilian usage, spoken and written."""
    FORMAL = "formal"
    """The good member belongs to careful writing; the bad one is wrong for everybody who writes so."""
    STANDARD = "norma-padrão"
    """The bad member is common in Brazilian usage, and only the prescribed norm rejects it."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two frames and two forms: `forms[0]` is right in `frames[0]`, `forms[1]` in `frames[1]`.

    Each form is right once and wrong once, so that no preference for a form alone, however strong, is right
    in more than one of the two pairs: a unigram model scores 50 % by construction. A contrast of one frame
    (word order) makes one pair, the right form first.
    """

    frames: tuple[str, ...]
    forms: tuple[str, str]
    lemmas: tuple[str, ...]
    """Content words, whose repeats within a phenomenon are limited."""

    def pairs(self) -> list[tuple[str, str]]:
        """(good, bad) for each frame."""
        return [
            (sentence(frame, self.forms[index]), sentence(frame, self.forms[1 - index]))
            for index, frame in enumerate(self.frames)
        ]


@dataclass(frozen=True, slots=True)
class Phenomenon:
    """One phenomenon: what the linguist reads, and where its contrasts come from."""

    name: str
    title: str
    """In Portuguese, as all the texts below."""
    register: Register
    rule: str
    source: str
    """The grammars that state the rule."""
    contrasts: Callable[[Draw], Iterator[Contrast]] = field(repr=False)
    """An endless stream of contrasts; the generator takes what is new and within the limits."""
    caveat: str = ""
    """What may go wrong, or what is left out on purpose."""
    repeats: int = 6
    """Contrasts of a phenomenon that may share a content word."""


def sentence(frame: str, form: str) -> str:
    """The frame with the form in its slot, with a capital and a full stop."""
    text = frame.replace(SLOT, form, 1)
    return text[0].upper() + text[1:] + ("" if text.endswith(("?", "!", ".")) else ".")
