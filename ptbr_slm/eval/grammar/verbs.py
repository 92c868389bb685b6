"""Conjugation of Portuguese verbs: regular endings, spelling changes, and a table of irregular verbs.

Only the forms that the grammar suite uses. Source of the paradigms: C. Cunha and L. Cintra, "Nova gramática
do português contemporâneo", chapter 13. `scripts/grammar_suite.py` compares the forms with MorphoBr's.
"""

from __future__ import annotations

from functools import cache

PERSONS = ("1s", "3s", "1p", "3p")
"""eu, ele, nós, eles. The second person follows the third in most of Brazil and is left out."""

_ENDINGS: dict[str, dict[str, tuple[str, str, str, str]]] = {
    "ar": {
        "pres": ("o", "a", "amos", "am"),
        "impf": ("ava", "ava", "ávamos", "avam"),
        "pret": ("ei", "ou", "amos", "aram"),
    },
    "er": {
        "pres": ("o", "e", "emos", "em"),
        "impf": ("ia", "ia", "íamos", "iam"),
        "pret": ("i", "eu", "emos", "eram"),
    },
    "ir": {
        "pres": ("o", "e", "imos", "em"),
        "impf": ("ia", "ia", "íamos", "iam"),
        "pret": ("i", "iu", "imos", "iram"),
    },
}
_FUTURE = ("ei", "á", "emos", "ão")
_INFINITIVE = ("", "", "mos", "em")
_SUBJUNCTIVE = {
    "ar": ("e", "e", "emos", "em"),
    "er": ("a", "a", "amos", "am"),
    "ir": ("a", "a", "amos", "am"),
}

IRREGULAR: dict[str, dict[str, str]] = {
    "ser": {
        "pres": "sou é somos são",
        "impf": "era era éramos eram",
        "pret": "fui foi fomos foram",
        "subj": "seja seja sejamos sejam",
    },
    "estar": {
        "pres": "estou está estamos estão",
        "pret": "estive esteve estivemos estiveram",
        "subj": "esteja esteja estejamos estejam",
    },
    "ter": {
        "pres": "tenho tem temos têm",
        "impf": "tinha tinha tínhamos tinham",
        "pret": "tive teve tivemos tiveram",
    },
    "haver": {
        "pres": "hei há havemos hão",
        "pret": "houve houve houvemos houveram",
        "subj": "haja haja hajamos hajam",
    },
    "ir": {
        "pres": "vou vai vamos vão",
        "pret": "fui foi fomos foram",
        "subj": "vá vá vamos vão",
    },
    "vir": {
        "pres": "venho vem vimos vêm",
        "impf": "vinha vinha vínhamos vinham",
        "pret": "vim veio viemos vieram",
        "gerund": "vindo",
        "participle": "vindo",
    },
    "ver": {"pres": "vejo vê vemos veem", "pret": "vi viu vimos viram", "participle": "visto"},
    "fazer": {
        "pres": "faço faz fazemos fazem",
        "pret": "fiz fez fizemos fizeram",
        "future": "far",
        "participle": "feito",
    },
    "dizer": {
        "pres": "digo diz dizemos dizem",
        "pret": "disse disse dissemos disseram",
        "future": "dir",
        "participle": "dito",
    },
    "trazer": {
        "pres": "trago traz trazemos trazem",
        "pret": "trouxe trouxe trouxemos trouxeram",
        "future": "trar",
    },
    "poder": {"pres": "posso pode podemos podem", "pret": "pude pôde pudemos puderam"},
    "querer": {
        "pres": "quero quer queremos querem",
        "pret": "quis quis quisemos quiseram",
        "subj": "queira queira queiramos queiram",
    },
    "saber": {
        "pres": "sei sabe sabemos sabem",
        "pret": "soube soube soubemos souberam",
        "subj": "saiba saiba saibamos saibam",
    },
    "dar": {
        "pres": "dou dá damos dão",
        "pret": "dei deu demos deram",
        "subj": "dê dê demos deem",
    },
    "pôr": {
        "pres": "ponho põe pomos põem",
        "impf": "punha punha púnhamos punham",
        "pret": "pus pôs pusemos puseram",
        "future": "por",
        "gerund": "pondo",
        "participle": "posto",
        "infinitive": "pôr pôr pormos porem",
    },
    "ler": {"pres": "leio lê lemos leem", "subj": "leia leia leiamos leiam"},
    "sair": {
        "pres": "saio sai saímos saem",
        "impf": "saía saía saíamos saíam",
        "pret": "saí saiu saímos saíram",
        "participle": "saído",
        "infinitive": "sair sair sairmos saírem",
    },
    "cair": {
        "pres": "caio cai caímos caem",
        "impf": "caía caía caíamos caíam",
        "pret": "caí caiu caímos caíram",
        "participle": "caído",
        "infinitive": "cair cair cairmos caírem",
    },
    "construir": {
        "pres": "construo constrói construímos constroem",
        "impf": "construía construía construíamos construíam",
        "pret": "construí construiu construímos construíram",
        "participle": "construído",
        "infinitive": "construir construir construirmos construírem",
    },
    "destruir": {
        "pres": "destruo destrói destruímos destroem",
        "impf": "destruía destruía destruíamos destruíam",
        "pret": "destruí destruiu destruímos destruíram",
        "participle": "destruído",
        "infinitive": "destruir destruir destruirmos destruírem",
    },
    "rir": {"pres": "rio ri rimos riem"},
    "sorrir": {"pres": "sorrio sorri sorrimos sorriem"},
    "ouvir": {"pres": "ouço ouve ouvimos ouvem"},
    "pedir": {"pres": "peço pede pedimos pedem"},
    "perder": {"pres": "perco perde perdemos perdem"},
    "dormir": {"pres": "durmo dorme dormimos dormem"},
    "cobrir": {"pres": "cubro cobre cobrimos cobrem", "participle": "coberto"},
    "descobrir": {"pres": "descubro descobre descobrimos descobrem", "participle": "descoberto"},
    "sentir": {"pres": "sinto sente sentimos sentem"},
    "mentir": {"pres": "minto mente mentimos mentem"},
    "preferir": {"pres": "prefiro prefere preferimos preferem"},
    "servir": {"pres": "sirvo serve servimos servem"},
    "vestir": {"pres": "visto veste vestimos vestem"},
    "seguir": {"pres": "sigo segue seguimos seguem"},
    "conseguir": {"pres": "consigo consegue conseguimos conseguem"},
    "despedir": {"pres": "despeço despede despedimos despedem"},
    "divertir": {"pres": "divirto diverte divertimos divertem"},
    "subir": {"pres": "subo sobe subimos sobem"},
    "fugir": {"pres": "fujo foge fugimos fogem"},
    "abrir": {"participle": "aberto"},
    "escrever": {"participle": "escrito"},
    "pagar": {"participle": "pago"},
    "ganhar": {"participle": "ganho"},
}


@cache
def conjugate(verb: str, tense: str, person: str) -> str:
    """One form. tense: pres, impf, pret, fut, cond, subj, subjf (future) or inf (inflected infinitive).

    person: one of `PERSONS`. `conjugate("fazer", "pret", "3p")` is "fizeram".
    """
    index = PERSONS.index(person)
    given = IRREGULAR.get(verb, {})
    if tense in given:
        return given[tense].split()[index]
    if tense in ("pres", "impf", "pret"):
        ending = _ENDINGS[_class(verb)][tense][index]
        return _spell(verb[:-2], _class(verb), ending)
    if tense == "fut":
        return given.get("future", verb) + _FUTURE[index]
    if tense == "cond":
        return given.get("future", verb) + ("ia", "ia", "íamos", "iam")[index]
    if tense == "subj":
        stem = conjugate(verb, "pres", "1s").removesuffix("o")
        ending = _SUBJUNCTIVE[_class(verb)][index]
        return _spell(stem, "ar", ending) if _class(verb) == "ar" else stem + ending
    if tense == "subjf":
        stem = conjugate(verb, "pret", "3p").removesuffix("am")  # fizeram -> fizer
        plain = stem.replace("aír", "air").replace("uír", "uir")
        return (stem if person == "3p" else plain) + _INFINITIVE[index]
    if tense == "inf":
        forms = given.get("infinitive")
        return forms.split()[index] if forms else verb + _INFINITIVE[index]
    raise KeyError(tense)


def gerund(verb: str) -> str:
    """`comprar` -> `comprando`."""
    return IRREGULAR.get(verb, {}).get("gerund") or verb[:-1] + "ndo"


def participle(verb: str, gender: str = "M", number: str = "SG") -> str:
    """Past participle, agreeing: `participle("escrever", "F", "PL")` is "escritas"."""
    regular = verb[:-2] + ("ado" if verb.endswith("ar") else "ido")
    stem = (IRREGULAR.get(verb, {}).get("participle") or regular)[:-1]
    return stem + ("o" if gender == "M" else "a") + ("s" if number == "PL" else "")


def _class(verb: str) -> str:
    return verb[-2:].replace("ô", "e")


def _spell(stem: str, conjugation: str, ending: str) -> str:
    """Join stem and ending with the letter that keeps the sound: ficar -> fiquei, conhecer -> conheço."""
    front = ending[:1] in "eéêií"
    if conjugation == "ar" and front:
        for final, written in (("c", "qu"), ("g", "gu"), ("ç", "c")):
            if stem.endswith(final):
                return stem[: -len(final)] + written + ending
    if conjugation != "ar" and not front:
        for final, written in (("gu", "g"), ("c", "ç"), ("g", "j")):
            if stem.endswith(final):
                return stem[: -len(final)] + written + ending
    return stem + ending
