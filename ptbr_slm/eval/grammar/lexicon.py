"""The words of the suite and how they go together: nouns, adjectives, and the things that people do."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TypeVar

from ptbr_slm.eval.grammar.verbs import conjugate

T = TypeVar("T")

SINGULAR, PLURAL = "SG", "PL"
RARE = 5
"""Occurrences below which a form is not used, in the text that the counts of nouns.tsv come from."""


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun. kind: pessoa, parente (said with a possessive), figura (a person with an office or a part to

    play, no subject for just any sentence), animal, coisa, lugar, comida or tempo.
    """

    singular: str
    plural: str
    gender: str
    kind: str
    has_plural: bool

    def form(self, number: str) -> str:
        """The form of a number."""
        return self.plural if number == PLURAL else self.singular

    def the(self, number: str = SINGULAR) -> str:
        """With the definite article; relatives with a possessive: "a casa", "meus irmãos"."""
        if self.kind == "parente":
            return f"{agree('meu', self.gender, number)} {self.form(number)}"
        return f"{agree('o', self.gender, number)} {self.form(number)}"


@dataclass(frozen=True, slots=True)
class Adjective:
    """An adjective in -o, the copula that goes with it, and nouns that it describes naturally."""

    lemma: str
    copula: str
    nouns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Activity:
    """A verb with the nouns it takes (objects, or subjects where it has no object) and adjuncts."""

    verb: str
    nouns: tuple[str, ...]
    adjuncts: tuple[str, ...]
    subjects: tuple[str, ...] = ()
    """Noun phrases, where not just anybody does it."""


def words(text: str) -> tuple[str, ...]:
    """The words of a text: a table is easier to read so than as a list of strings."""
    return tuple(text.split())


MASS = frozenset(words("vinho café leite água chá cerveja carne pão sopa queijo arroz açúcar peixe dinheiro"))
"""Nouns that do not go with "um" or with a plural here."""

_ONE_EACH = (
    "marido",
    "esposa",
    "noivo",
    "noiva",
    "namorado",
    "namorada",
    "companheiro",
    "companheira",
    "avô",
)
"""Of whom one speaks in the singular."""
_CHILDREN = ("menino", "menina", "criança", "aluno", "filho", "filha", "neto", "neta", "sobrinho", "sobrinha")
_CHILDREN_DO = (
    *("comer", "quebrar", "perder", "abrir", "fechar", "ler", "lavar", "encontrar", "esquecer"),
    *("contar", "mostrar", "trazer", "deixar", "guardar", "receber", "visitar"),
)
_FEMININE = {
    "meu": "minha",
    "seu": "sua",
    "um": "uma",
    "algum": "alguma",
    "nenhum": "nenhuma",
    "dois": "duas",
}
_PLURAL = {"um": "uns", "algum": "alguns", "este": "estes", "esse": "esses", "aquele": "aqueles"}


def agree(word: str, gender: str, number: str = SINGULAR) -> str:
    """A determiner or an adjective, given in the masculine singular, in another gender and number."""
    if gender == "F":
        if word in _FEMININE:
            word = _FEMININE[word]
        elif word.endswith(("o", "e")):
            word = word[:-1] + "a"
        return word + ("s" if number == PLURAL else "")
    return _PLURAL.get(word, word + "s") if number == PLURAL else word


class Draw:
    """A seeded choice of words."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)
        self._bags: dict[tuple[object, ...], list[int]] = {}

    def one(self, options: Sequence[T]) -> T:
        """One of the options, each as often as the others: all are drawn before one comes again."""
        bag = self._bags.setdefault(tuple(options), [])
        if not bag:
            bag.extend(range(len(options)))
            self.random.shuffle(bag)
        return options[bag.pop()]

    def noun(self, *kinds: str, gender: str = "", plural: bool = False) -> Noun:
        """A noun of one of the kinds; `plural`: one whose plural is in use."""
        return self.one(_nouns_of(kinds, gender, plural))

    def person(self, gender: str = "", plural: bool = False) -> Noun:
        """Somebody: `the()` of it is a natural subject."""
        kind = "parente" if self.random.random() < 0.3 else "pessoa"
        return self.noun(kind, gender=gender, plural=plural)

    def number(self) -> str:
        """SG or PL."""
        return self.random.choice((SINGULAR, PLURAL))

    def chance(self, share: float = 0.5) -> bool:
        """True in this share of the calls."""
        return self.random.random() < share

    def activity(self) -> Activity:
        """Something that people do to a thing."""
        return self.one(activities())

    def doer(self, activity: Activity) -> tuple[str, str]:
        """A subject in the singular for it, and its content word."""
        if activity.subjects:
            phrase = self.one(activity.subjects)
            return phrase, phrase.split()[-1]
        who = self.person()
        while who.singular in _CHILDREN and activity.verb not in _CHILDREN_DO:
            who = self.person()
        return who.the(), who.singular

    def pick(self, nouns: Sequence[str], gender: str = "", plural: bool = False) -> Noun | None:
        """One of the named nouns with that gender, if there is one."""
        found = [
            noun(name)
            for name in nouns
            if (not gender or noun(name).gender == gender) and (noun(name).has_plural or not plural)
        ]
        return self.random.choice(found) if found else None


@cache
def noun(name: str) -> Noun:
    """The noun with this singular. Raises KeyError."""
    return _nouns()[name]


@cache
def adjectives(copula: str = "") -> tuple[Adjective, ...]:
    """The adjectives, all or those of a copula (ser, estar)."""
    rows = (line.split("\t") for line in _lines("adjectives.tsv"))
    found = (Adjective(lemma, verb, tuple(nouns.split())) for lemma, verb, nouns in rows)
    return tuple(adjective for adjective in found if copula in ("", adjective.copula))


@cache
def activities() -> tuple[Activity, ...]:
    """Transitive ones."""
    return _activities("transitive.tsv")


@cache
def intransitive() -> tuple[Activity, ...]:
    """Intransitive ones; `nouns` are the subjects; P (people) and A (animals) are written out."""
    return _activities("intransitive.tsv")


def past(verb: str, number: str = SINGULAR) -> str:
    """Preterite, third person."""
    return conjugate(verb, "pret", "3p" if number == PLURAL else "3s")


@cache
def _nouns() -> dict[str, Noun]:
    rows = (line.split("\t") for line in _lines("nouns.tsv"))
    return {
        row[0]: Noun(row[0], row[1], row[2], row[3], int(row[5]) >= RARE and row[0] not in _ONE_EACH)
        for row in rows
        if int(row[4]) >= RARE
    }


@cache
def _nouns_of(kinds: tuple[str, ...], gender: str, plural: bool) -> tuple[Noun, ...]:
    return tuple(
        noun
        for noun in _nouns().values()
        if noun.kind in kinds and gender in ("", noun.gender) and (noun.has_plural or not plural)
    )


def _activities(name: str) -> tuple[Activity, ...]:
    rows = (line.split("\t") for line in _lines(name))
    return tuple(
        Activity(
            verb, tuple(_expand(nouns)), *(tuple(text.strip() for text in more.split(";")) for more in rest)
        )
        for verb, nouns, *rest in rows
    )


def _expand(nouns: str) -> list[str]:
    found: list[str] = []
    for name in nouns.split():
        kinds = {"P": ("pessoa", "parente"), "A": ("animal",)}.get(name)
        found += [noun.singular for noun in _nouns().values() if noun.kind in kinds] if kinds else [name]
    return found


@cache
def _lines(name: str) -> tuple[str, ...]:
    text = (files("ptbr_slm.eval.grammar") / "data" / name).read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))
