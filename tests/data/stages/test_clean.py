"""Line ends, encodings, ligatures, invisible characters: repaired, counted, and nothing else is lost."""

from __future__ import annotations

import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.data.document import DocumentCounts
from ptbr_slm.data.pipeline import read_documents
from ptbr_slm.data.stages.characters import INVISIBLE
from ptbr_slm.data.stages.clean import clean

PROSE = (
    "O homem que caminhava pela estrada de terra batida não sabia se a tra\xad\n"
    "dução do livro que levava consigo era boa ou ruim, mas ca\xad\n"
    "minhava assim mesmo, com passo firme e olhar distante, enquanto o\n"
    "sol descia devagar atrás das montanhas e a noite chegava mansa,\n"
    "cheia de estrelas e de silêncios que ninguém mais saberia ouvir\n"
    "como ele ouvia."
)


def read(*inputs: Path) -> tuple[list[str], DocumentCounts]:
    counts = DocumentCounts()
    return [document.text for document in read_documents(inputs, counts=counts)], counts


def cleaned(text: str) -> tuple[str | None, dict[str, int]]:
    result = clean(text)
    return None if result.dropped else result.text, dict(Counter(result.repairs))


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("A tra\xad\ndução boa.", "A tradução boa."),
        ("A tra\xad  \r\n   dução boa.", "A tradução boa."),
        ("A tra\xad dução boa.", "A tradução boa."),
        ("A tra\xaddu\xadção boa.", "A tradução boa."),
        ("No fim\xad\n\nOutro parágrafo.", "No fim\n\nOutro parágrafo."),
        ("Preço\xad: 10 reais.", "Preço: 10 reais."),
    ],
)
def test_a_soft_hyphen_leaves_a_whole_word(text: str, whole: str):
    found, repaired = cleaned(text)
    assert found == whole and repaired["invisible"] == 1


def test_a_soft_hyphen_at_a_lines_end_joins_the_lines_of_wrapped_prose():
    found, repaired = cleaned(PROSE)
    assert found == PROSE.replace("\xad\n", "").replace("\n", " ")
    assert repaired == {"invisible": 1, "unwrapped": 1}


@pytest.mark.parametrize("mark", ["\u200b", "\u200b\u200b", "\u2060", "\u200e", "\u202a", "\u200c", "\u200d"])
def test_zero_width_characters_are_taken_out_of_words_and_counted(mark: str):
    assert cleaned(f"valores passa{mark}dos {mark}aqui{mark}") == ("valores passados aqui", {"invisible": 1})


@pytest.mark.parametrize(
    "text", ["A família 👨\u200d👩\u200d👧 veio.", "Amor ❤️\u200d🔥 sem fim.", "می\u200cخواهم e nós."]
)
def test_joiners_that_join_stay(text: str):
    assert cleaned(text) == (text, {})


def test_ligatures_of_pdfs_become_letters_and_are_counted():
    assert cleaned("O ﬁm do aﬂuente, o oﬀ e o eﬃcaz.") == (
        "O fim do afluente, o off e o efficaz.",
        {"ligatures": 1},
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(["a", "é", "tra", "\xad", " ", "\n", "\n\n", "\u200b", "\u200d", ".", "👨"])))
def test_cleaned_text_stays_as_it_is_when_cleaned_again(pieces: list[str]):
    once, _ = cleaned("".join(pieces))
    if once is not None:
        assert cleaned(once)[0] == once
        assert set(INVISIBLE.findall(once)) <= {"\u200d"}


@pytest.mark.parametrize("ends", ["\r\n", "\r", "\n"])
def test_bom_line_ends_and_unicode_form_do_not_matter(tmp_path: Path, ends: str):
    text = "Primeira linha com ação.\nSegunda linha é outra."
    written = unicodedata.normalize("NFD", text).replace("\n", ends)
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + written.encode())
    assert read(tmp_path)[0] == [text]


def test_control_characters_go_and_nbsp_becomes_a_space(tmp_path: Path):
    (tmp_path / "a.txt").write_text(
        "Preço:\xa0R$\xa010 hoje\x07, no\x0bcapítulo\x0cdois da feira da praça.   \n"
    )
    assert read(tmp_path)[0] == ["Preço: R$ 10 hoje, no\ncapítulo\n\ndois da feira da praça."]


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("NÃ£o hÃ¡ razÃ£o para isso.", "Não há razão para isso."),
        ("Ele disse â€œsimâ€\x9d e saiu.", "Ele disse “sim” e saiu."),
        ("A PREFEITURA DE SÃ£o Paulo abriu.", "A PREFEITURA DE São Paulo abriu."),
        ("Uma linha boa: ação.\nOutra linha: aÃ§Ã£o.", "Uma linha boa: ação.\nOutra linha: ação."),
    ],
)
def test_mojibake_is_repaired_and_counted(tmp_path: Path, broken: str, whole: str):
    (tmp_path / "a.txt").write_text(broken)
    found, counts = read(tmp_path)
    assert (found, dict(counts.repaired)) == ([whole], {"mojibake": 1})


@pytest.mark.parametrize(
    "text",
    ["Gritou: “MINHA IRMÔ, e saiu.", "AMANHÃ, ÀS 15h, EM SÃO JOSÉ.", "O Â é uma letra. Ô de casa!"],
)
def test_good_portuguese_is_never_taken_for_mojibake(tmp_path: Path, text: str):
    (tmp_path / "a.txt").write_text(text)
    found, counts = read(tmp_path)
    assert found == [text] and not counts.repaired
