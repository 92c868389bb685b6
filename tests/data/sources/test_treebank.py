"""Annotated Portuguese comes back as it was printed."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptbr_slm.data.sources.treebank import CONTRACTIONS, Word, detokenize, surface_forms

TAGS = {
    "em": "ADP", "de": "ADP", "por": "ADP", "a": "DET", "o": "DET", "os": "DET", "as": "DET", "esta": "DET",
    "este": "DET", "aquele": "DET", "ele": "PRON", "se": "PRON", "lo": "PRON", "los": "PRON", "la": "PRON",
}  # fmt: skip


def words(sentence: str) -> list[Word]:
    """Words written as `form` or `form/UPOS` or `form/UPOS/feats`; common ones have a tag of their own."""
    made = []
    for token in sentence.split():
        form, _, rest = token.partition("/")
        upos, _, feats = rest.partition("/")
        made.append(Word(form, upos or TAGS.get(form.lower(), "NOUN"), feats))
    return made


@pytest.mark.parametrize(
    ("stored", "printed"),
    [
        ("em a noite de esta segunda-feira", "na noite desta segunda-feira"),
        ("por os jogadores", "pelos jogadores"),
        ("ir a/ADP o mercado e a/ADP a feira", "ir ao mercado e à feira"),
        ("a/ADP aquele homem", "àquele homem"),
        ("Em os últimos três anos", "Nos últimos três anos"),
        ("DE O LIVRO", "DO LIVRO"),
        ("O livro", "O livro"),
        ("em um/DET dia", "em um dia"),
        ("depois de aqui/ADV", "depois daqui"),
        ("a casa de ele", "a casa dele"),
        ("antes de ele sair/VERB/VerbForm=Inf", "antes de ele sair"),
        ("prazer de/ADP o/PRON/Case=Acc ver/VERB", "prazer de o ver"),
        ("saber de o/PRON/PronType=Dem que", "saber do que"),
        ("afastar/VERB lo de o cargo", "afastá-lo do cargo"),
        ("fazer/VERB los", "fazê-los"),
        ("pôr/VERB la", "pô-la"),
        ("construir/VERB la", "construí-la"),
        ("extinguir/VERB la", "extingui-la"),
        ("afastá/VERB lo", "afastá-lo"),
        ("trata/VERB se de um engano", "trata-se de um engano"),
        ("pode/AUX se dizer/VERB", "pode se dizer"),
        ("comprar/VERB o/PRON/Case=Acc ontem", "comprá-lo ontem"),
        ("comprar/VERB o pão", "comprar o pão"),
    ],
)
def test_contractions_and_hyphens_come_back(stored: str, printed: str):
    assert " ".join(surface_forms(words(stored))) == printed


def test_a_sentence_with_its_contractions_marked_keeps_a_genuine_de_o():
    sentence = words("apesar de o time ter/VERB perdido, recrutar/VERB los")
    assert " ".join(surface_forms(sentence, contracted=True)) == "apesar de o time ter perdido, recrutá-los"


def test_every_contraction_is_one_word_that_ends_as_the_second():
    for (_, second), joined in CONTRACTIONS.items():
        assert " " not in joined and joined.replace("à", "a")[-1] == second[-1]


@pytest.mark.parametrize(
    ("stored", "printed"),
    [
        ("lascado , todo dia .", "lascado, todo dia."),
        ('disse que " não viu " ontem', 'disse que "não viu" ontem'),
        ('" Sim " , disse ; " não " .', '"Sim", disse; "não".'),
        ("\" Quis ' dois ou três ' \" , disse .", "\"Quis 'dois ou três'\", disse."),
        ("subiu 1,11 % ( ontem ) : fim !", "subiu 1,11% (ontem): fim!"),
        ("Eles [ os juízes ] vieram ...", "Eles [os juízes] vieram..."),
        ("as ações - do Brasil - caíram", "as ações - do Brasil - caíram"),
        ("custa R$ 50 e anda 4/ 10 km / h", "custa R$ 50 e anda 4/10 km/h"),
    ],
)
def test_spaces_around_punctuation_come_back(stored: str, printed: str):
    assert detokenize(stored.split()) == printed


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1), max_size=20)
)
def test_joining_changes_nothing_but_spaces(forms: list[str]):
    assert detokenize(forms).replace(" ", "") == "".join(forms).replace(" ", "")
    assert detokenize(forms) == detokenize(forms).strip()


@given(
    st.lists(
        st.sampled_from(["em", "de", "por", "a", "o", "os", "as", "esta", "ele", "casa", "se", "lo", "ver"]),
        max_size=12,
    )
)
def test_restoring_twice_changes_nothing(forms: list[str]):
    once = surface_forms(words(" ".join(forms)))
    assert surface_forms([Word(form) for form in once]) == once
    assert not any(re.search(r"\s", form) for form in once)
