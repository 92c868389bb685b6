"""Put annotated Portuguese back as it was written: contractions, hyphens and the spaces around punctuation.

A treebank stores `em a indústria , de esta vez`; the text was `na indústria, desta vez`. The tags of the
annotation say which `a` is an article, so nothing is guessed from spelling alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Word(NamedTuple):
    """A token of a CoNLL-U sentence: its form, universal part of speech and features."""

    form: str
    upos: str = "X"
    feats: str = ""


_ARTICLES = ("o", "a", "os", "as")
_NEAR = ("este", "esta", "estes", "estas", "isto", "esse", "essa", "esses", "essas", "isso")
_FAR = ("aquele", "aquela", "aqueles", "aquelas", "aquilo")
_PERSONS = ("ele", "ela", "eles", "elas")

CONTRACTIONS: dict[tuple[str, str], str] = {
    **{("de", word): "d" + word for word in (*_ARTICLES, *_NEAR, *_FAR, *_PERSONS, "aqui", "aí", "ali")},
    **{("em", word): "n" + word for word in (*_ARTICLES, *_NEAR, *_FAR, *_PERSONS)},
    **{("por", word): "pel" + word for word in _ARTICLES},
    **{("a", word): "à" + word[1:] for word in ("a", "as", *_FAR)},
    ("a", "o"): "ao",
    ("a", "os"): "aos",
}
"""(preposition, next word) -> what is written. `em um` and `de um` stay: both are good print."""

_ENCLITICS = ("me", "te", "se", "nos", "vos", "lhe", "lhes")
_AFTER_R = ("lo", "la", "los", "las")
_ACCENTED = {"a": "á", "e": "ê", "o": "ô", "ô": "ô"}

_NO_SPACE_BEFORE = frozenset(",.;:?!)]}%”’»…") | {"..."}
_NO_SPACE_AFTER = frozenset("([{“‘«#€")
_NO_SPACE_AROUND = frozenset("/&|")


def surface_forms(words: Sequence[Word], *, contracted: bool = False) -> list[str]:
    """Forms with enclitic pronouns hyphenated and, unless `contracted` already, prepositions contracted.

    Left alone: a preposition before a pronoun that is the subject of an infinitive (`antes de ele sair`),
    or before an object pronoun (`a o ver`).
    """
    forms: list[str] = []
    at = 0
    while at < len(words):
        following = words[at + 1] if at + 1 < len(words) else Word("")
        after = words[at + 2] if at + 2 < len(words) else Word("")
        joined = None if contracted else _contraction(words[at], following, after)
        joined = joined or _enclisis(words[at], following, after)
        forms.append(joined or words[at].form)
        at += 2 if joined else 1
    return forms


def detokenize(forms: Sequence[str]) -> str:
    """One sentence from its tokens, with the spaces of Portuguese print; quotes open and close in turn."""
    text, tight = "", True
    open_quotes: set[str] = set()
    for form in forms:
        if form in ('"', "'"):
            closing = form in open_quotes
            open_quotes ^= {form}
            text += form if closing or tight else " " + form
            tight = not closing
        elif form in _NO_SPACE_AROUND:
            text, tight = text + form, True
        else:
            text += form if tight or form in _NO_SPACE_BEFORE else " " + form
            tight = form in _NO_SPACE_AFTER or form.endswith("/")
    return text


def _contraction(word: Word, following: Word, after: Word) -> str | None:
    joined = CONTRACTIONS.get((word.form.lower(), following.form.lower()))
    if joined is None or word.upos != "ADP" or following.upos not in ("DET", "PRON", "ADV"):
        return None
    if following.form.lower() in _ARTICLES and following.upos == "PRON" and "Case=Acc" in following.feats:
        return None
    if following.form.lower() in _PERSONS and "VerbForm=Inf" in after.feats:
        return None
    return _in_case_of(word.form, joined, following.form)


def _enclisis(word: Word, following: Word, after: Word) -> str | None:
    """`afastar` + `lo` -> `afastá-lo`, `trata` + `se` -> `trata-se`; None where it may lean forward."""
    pronoun = following.form.lower()
    if word.upos not in ("VERB", "AUX") or following.upos != "PRON":
        return None
    if pronoun in _AFTER_R:
        return f"{_without_r(word.form)}-{following.form}"
    leans_back = pronoun in _ENCLITICS or (pronoun in _ARTICLES and "Case=Acc" in following.feats)
    if not leans_back or after.upos in ("VERB", "AUX"):
        return None
    if pronoun in _ARTICLES and word.form.endswith("r"):
        return f"{_without_r(word.form)}-l{following.form}"
    return f"{word.form}-{following.form}"


def _without_r(verb: str) -> str:
    """The infinitive before `-lo`: `trocar` -> `trocá`, `fazer` -> `fazê`, `construir` -> `construí`."""
    if len(verb) < 3 or verb[-1] not in "rsz":
        return verb
    stem, vowel = verb[:-2], verb[-2]
    if vowel == "i" and stem[-1] in "aou" and not stem.endswith(("gu", "qu")):
        vowel = "í"
    return stem + _ACCENTED.get(vowel, vowel)


def _in_case_of(first: str, joined: str, second: str) -> str:
    if first.isupper() and second.isupper() and len(first + second) > 2:
        return joined.upper()
    return joined[0].upper() + joined[1:] if first[0].isupper() else joined
