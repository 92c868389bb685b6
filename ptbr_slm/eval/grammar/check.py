"""The second check of the pairs: agreement recomputed from the finished strings.

Shares no code and no table with the generator. Gender and number of nouns, adjectives and participles come
from MorphoBr's tags (data/morphobr.tsv), those of verbs from their endings, those of determiners and pronouns
from the tables below. For each phenomenon one rule says what the good member must satisfy and the bad one
violate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from ptbr_slm.eval.grammar.suite import PhenomenonPairs

Features = frozenset[tuple[str, str]]
"""Possible (gender, number) readings of a word; "*" is a feature that the form leaves open."""


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a pair up to and after the one that differs."""

    good: tuple[str, ...]
    bad: tuple[str, ...]
    at: int
    """Index of the word that differs."""

    @property
    def forms(self) -> tuple[str, str]:
        """The word that differs, in the good and in the bad member."""
        return self.good[self.at], self.bad[self.at]


Rule = Callable[[tuple[str, ...], int, str], bool | None]
"""(words, index, form): whether the form fits there; None: the rule cannot tell, a fault too."""


def faults(phenomenon: PhenomenonPairs) -> list[str]:
    """What is wrong with the pairs of a phenomenon, a line each, with the pair's id."""
    found: list[str] = []
    rule = RULES.get(phenomenon.name)
    if rule is None:
        found.append(f"{phenomenon.name}: no rule")
    swapped: Counter[tuple[str, str]] = Counter()
    sentences: Counter[str] = Counter()
    for pair in phenomenon.pairs:
        sentences.update((pair.good, pair.bad))
        found += [f"{pair.id}: {text}" for text in (*_shape(pair.good), *_shape(pair.bad))]
        words = split_pair(pair.good, pair.bad)
        if words is None:
            if phenomenon.name not in REORDERED:
                found.append(f"{pair.id}: the members differ in more than one word")
            elif sorted(_words(pair.good)) != sorted(_words(pair.bad)) and phenomenon.name not in UNBALANCED:
                found.append(f"{pair.id}: the members have different words")
            continue
        good, bad = words.forms
        swapped[good, bad] += 1
        swapped[bad, good] -= 1
        if rule is not None:
            verdicts = rule(words.good, words.at, good), rule(words.bad, words.at, bad)
            if verdicts != (True, False):
                found.append(f"{pair.id}: the rule says {verdicts}: {pair.good} / {pair.bad}")
    if phenomenon.name not in UNBALANCED:
        found += [
            f"{phenomenon.name}: {forms} not balanced ({n:+d})" for forms, n in swapped.items() if n > 0
        ]
    found += [f"{phenomenon.name}: twice: {text}" for text, n in sentences.items() if n > 1]
    return found


REORDERED: frozenset[str] = frozenset()
"""Phenomena whose members differ in more than one word."""
UNBALANCED: frozenset[str] = frozenset()
"""Phenomena in which a form is right more often than wrong."""


def split_pair(good: str, bad: str) -> Words | None:
    """The words of a pair that differs in exactly one; None for another pair."""
    left, right = _words(good), _words(bad)
    differing = [index for index, (a, b) in enumerate(zip(left, right, strict=False)) if a != b]
    return Words(left, right, differing[0]) if len(left) == len(right) and len(differing) == 1 else None


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip(",.?!") for word in (text[0].lower() + text[1:]).split())


def _shape(text: str) -> Iterable[str]:
    if not text[0].isupper() or text[-1] not in ".?!" or text != " ".join(text.split()) or "_" in text:
        yield f"not a sentence as written: {text!r}"


@cache
def _table(classes: str = "N") -> dict[str, Features]:
    """MorphoBr's readings of the words of the suite. classes: of "N" (nouns), "A", "V" (participles)."""
    text = (files("ptbr_slm.eval.grammar") / "data" / "morphobr.tsv").read_text(encoding="utf-8")
    found: dict[str, set[tuple[str, str]]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            form, tags = line.split("\t")
            parts = tags.split("+")[1:]
            if parts[0] not in classes:
                continue
            gender = next((part for part in parts if part in ("M", "F")), "*")
            number = next((part for part in parts if part in ("SG", "PL")), "*")
            found.setdefault(form, set()).add((gender, number))
    return {form: frozenset(readings) for form, readings in found.items()}


def _determiner(word: str) -> Features | None:
    """Gender and number of a word of the closed classes, by its ending."""
    for prefix in ("d", "n", "pel", ""):
        rest = word.removeprefix(prefix)
        if rest in ("o", "a", "os", "as"):
            return frozenset({("F" if "a" in rest else "M", "PL" if rest.endswith("s") else "SG")})
    stems = (
        "est",
        "ess",
        "aquel",
        "me",
        "minh",
        "su",
        "se",
        "noss",
        "um",
        "un",
        "tod",
        "muit",
        "pouc",
        "vári",
        "amb",
        "algu",
        "algun",
        "quant",
        "nenhu",
        "dois",
        "duas",
    )
    bare = word
    for prefix in ("d", "n"):
        if word[1:].startswith(("est", "ess", "aquel")) and word.startswith(prefix):
            bare = word[1:]
    if not bare.startswith(stems):
        return None
    if bare in ("dois", "duas"):
        return frozenset({("M" if bare == "dois" else "F", "PL")})
    gender = "F" if bare.rstrip("s").endswith("a") else "M"
    return frozenset({(gender, "PL" if bare.endswith("s") else "SG")})


def _match(one: Features | None, other: Features | None) -> bool | None:
    if not one or not other:
        return None
    return any(
        all("*" in (a, b) or a == b for a, b in zip(first, second, strict=True))
        for first in one
        for second in other
    )


def _before_noun(words: tuple[str, ...], at: int, form: str) -> bool | None:
    following = words[at + 1 : at + 3]
    noun = following[1] if following[0] in ("os", "as") else following[0]
    return _match(_determiner(form), _table().get(noun))


def _after_noun(words: tuple[str, ...], at: int, form: str) -> bool | None:
    head = _match(_determiner(words[at - 2]), _table("AV").get(form))
    return head and _match(_table().get(words[at - 1]), _table("AV").get(form))


def _with_subject(words: tuple[str, ...], at: int, form: str) -> bool | None:
    """The subject is a determiner and a noun at the beginning."""
    determiner, noun = _determiner(words[0]), _table().get(words[1])
    both = frozenset(reading for reading in noun or () if _match(frozenset({reading}), determiner))
    return _match(both, _table("AV").get(form))


def _participle(words: tuple[str, ...], at: int, form: str) -> bool | None:
    if words[at - 1].startswith("tinha"):
        return form.endswith("o")
    return _with_subject(words, at, form)


def plural_verb(form: str) -> bool:
    """Whether a verb form of the third person is plural, by its ending: -m, -ão (vão, são)."""
    return form.endswith(("m", "ão")) and form not in ("vem", "tem", "bem", "convém")


def _verb_number(words: tuple[str, ...], at: int, form: str) -> bool | None:
    determiner = _determiner(words[0])
    if determiner is None:
        return None
    (_, number), *_ = determiner
    agrees = _match(determiner, _table().get(words[1]))
    return agrees and plural_verb(form) == (number == "PL")


def _coordinated(words: tuple[str, ...], at: int, form: str) -> bool | None:
    return plural_verb(form) == ("e" in words[:at])


_FIRST_SINGULAR = (
    "fiz",
    "disse",
    "trouxe",
    "vi",
    "fui",
    "sei",
    "vou",
    "estou",
    "pude",
    "tive",
    "vim",
    "pus",
    "quis",
)
_SAME = ("disse", "trouxe", "quis")


def _person(words: tuple[str, ...], at: int, form: str) -> bool | None:
    """eu: -o, -i or a strong preterite; nós: -mos; você, ela: neither; plural pronouns: -m or -ão."""
    subject = words[0]
    if subject == "nós":
        return form.endswith("mos")
    if subject in ("eles", "elas", "vocês"):
        return plural_verb(form) and not form.endswith("mos")
    if form.endswith("mos") or plural_verb(form):
        return False
    imperfect = form.endswith(("ava", "ia")) or form in _SAME
    first = (
        imperfect
        or (form.endswith(("o", "i", "í")) and form not in ("foi", "vai"))
        or form in _FIRST_SINGULAR
    )
    third = imperfect or not first or (form.endswith("ou") and form not in ("vou", "estou"))
    if form.endswith("ou") and form not in ("vou", "estou"):
        first = False
    return first if subject == "eu" else third if subject in ("ela", "ele", "você") else None


RULES: dict[str, Rule] = {
    "determinante_genero": _before_noun,
    "determinante_numero": _before_noun,
    "quantificador_genero": _before_noun,
    "adjetivo_genero": _after_noun,
    "adjetivo_numero": _after_noun,
    "sujeito_verbo_numero": _verb_number,
    "sujeito_verbo_relativa": _verb_number,
    "sujeito_verbo_complemento": _verb_number,
    "pessoa_verbal": _person,
    "sujeito_composto": _coordinated,
    "predicativo_genero": _with_subject,
    "predicativo_numero": _with_subject,
    "predicativo_complemento": _with_subject,
    "passiva_genero": _with_subject,
    "participio_ter_estar": _participle,
    "predicativo_verbo": _with_subject,
}
