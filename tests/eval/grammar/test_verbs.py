"""Conjugation: spelling, irregular verbs, participles."""

from __future__ import annotations

import pytest

from ptbr_slm.eval.grammar.verbs import PERSONS, conjugate, gerund, participle


@pytest.mark.parametrize(
    ("verb", "tense", "forms"),
    [
        ("comprar", "pret", "comprei comprou compramos compraram"),
        ("chegar", "pret", "cheguei chegou chegamos chegaram"),
        ("começar", "subj", "comece comece comecemos comecem"),
        ("conhecer", "pres", "conheço conhece conhecemos conhecem"),
        ("conhecer", "impf", "conhecia conhecia conhecíamos conheciam"),
        ("seguir", "subj", "siga siga sigamos sigam"),
        ("fugir", "subj", "fuja fuja fujamos fujam"),
        ("ficar", "subj", "fique fique fiquemos fiquem"),
        ("fazer", "subjf", "fizer fizer fizermos fizerem"),
        ("fazer", "fut", "farei fará faremos farão"),
        ("vir", "subjf", "vier vier viermos vierem"),
        ("ver", "subjf", "vir vir virmos virem"),
        ("sair", "subjf", "sair sair sairmos saírem"),
        ("sair", "inf", "sair sair sairmos saírem"),
        ("pôr", "inf", "pôr pôr pormos porem"),
        ("ter", "subj", "tenha tenha tenhamos tenham"),
        ("dizer", "cond", "diria diria diríamos diriam"),
    ],
)
def test_conjugate(verb, tense, forms):
    assert " ".join(conjugate(verb, tense, person) for person in PERSONS) == forms


def test_gerund_and_participle():
    assert (gerund("abrir"), gerund("pôr"), gerund("vir")) == ("abrindo", "pondo", "vindo")
    assert participle("escrever", "F", "PL") == "escritas"
    assert participle("comprar") == "comprado"
    assert participle("sair", "M", "PL") == "saídos"


def test_an_unknown_tense():
    with pytest.raises(KeyError):
        conjugate("comprar", "pluperfect", "1s")
