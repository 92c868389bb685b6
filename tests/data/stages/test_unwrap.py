"""Hard-wrapped prose is joined; verse, lists, dialogue and plain paragraphs are not touched."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.data.stages.unwrap import unwrap

VERSE = """\
Na beira da lagoa a lua nova
Desceu pisando a água devagar,
E o sapo, que de amores se renova,
Pôs-se na pedra fria a namorar.

Quem passa pela ponte não repara
Na luz que se reparte em cada grão;
A noite, que de tudo se separa,
Guardou a lua inteira numa mão."""

FREE_VERSE = """\
saí de casa
com a chave no bolso e o dia inteiro pela frente
sem pressa
a rua era uma fita estendida até o mercado
e o vento
um menino que corre atrás de uma pipa amarela
voltei tarde
com as mãos cheias de nada e de laranjas maduras"""

LIST = """\
Para a festa de sábado vamos precisar de:
- dois quilos de farinha de trigo e um de açúcar
- três dúzias de ovos, que a vizinha prometeu
- leite, manteiga e um pouco de sal
1) quem chega primeiro acende o fogão a lenha
2) quem chega por último lava toda a louça
a) as crianças ficam no quintal com o avô"""


@pytest.mark.parametrize("width", [50, 66, 72, 80, 100])
@pytest.mark.parametrize("gap", ["\n", "\n\n", "\n    "])
def test_wrapped_prose_comes_back_as_its_paragraphs(prose: Callable[..., str], width: int, gap: str):
    paragraphs = [prose(seed, 8) for seed in range(6)]
    joined = unwrap(gap.join(textwrap.fill(p, width, break_on_hyphens=False) for p in paragraphs))
    if gap == "\n\n":
        assert joined == gap.join(paragraphs)
    else:  # a paragraph whose last line reaches the margin may swallow the next; nothing else may differ
        assert joined.split() == " ".join(paragraphs).split()
        assert len(paragraphs) - 2 <= len(joined.split(gap)) <= len(paragraphs)


def test_a_justified_line_that_became_a_word_a_line_is_joined_too(prose: Callable[..., str]):
    lines = textwrap.fill(prose(3, 120), 66, break_on_hyphens=False).split("\n")
    broken = "\n".join([*lines[:4], *lines[4].split(" "), *lines[5:]])
    assert unwrap(broken) == unwrap("\n".join(lines)) == " ".join(lines)


def test_a_play_whose_speeches_are_wrapped_is_joined_speech_by_speech(prose: Callable[..., str]):
    speeches = [(f"{name}\nSim.\n{other}\nNão digo que não!", prose(number, 1 + number % 4))
                for number, (name, other) in enumerate([("LUÍS", "CLARA"), ("ANA", "RUI")] * 40)]  # fmt: skip
    wrapped = [
        f"{short}\nRITA\n{textwrap.fill(long, 80, break_on_hyphens=False)}" for short, long in speeches
    ]
    joined = unwrap("\n".join(wrapped)).split("\n")
    assert joined.count("LUÍS") == joined.count("ANA") == 40 and joined.count("RITA") == 80
    assert sum(long in joined for _, long in speeches) > 70


def test_a_few_lines_that_were_joined_already_do_not_hide_the_width(prose: Callable[..., str]):
    lines = textwrap.fill(prose(4, 200), 76, break_on_hyphens=False).split("\n")
    pairs = [f"{lines[i]} {lines[i + 1]}" if i % 16 == 0 else "\n".join(lines[i : i + 2])
             for i in range(0, len(lines) - 1, 2)]  # fmt: skip
    assert "\n" not in unwrap("\n".join(pairs))


@pytest.mark.parametrize("text", [VERSE, FREE_VERSE, LIST], ids=["verse", "free verse", "list"])
def test_verse_and_lists_keep_their_lines(text: str):
    assert unwrap(text) == text


def test_one_paragraph_a_line_stays(prose: Callable[..., str]):
    text = "\n".join(prose(seed, 5) for seed in range(12))
    assert unwrap(text) == text


def test_verse_dialogue_and_headings_inside_wrapped_prose_stay(prose: Callable[..., str]):
    wrapped = textwrap.fill(prose(1, 20), 70)
    spoken = "— Bom dia, disse ela.\n— Bom dia."
    again = textwrap.fill(prose(2, 20), 70)
    text = f"CAPÍTULO I\n{wrapped}\n{spoken}\n\n{VERSE}\n\nCAPÍTULO II\n{again}"
    lines = unwrap(text).split("\n")
    assert "CAPÍTULO I" in lines and "CAPÍTULO II" in lines and "— Bom dia." in lines
    assert VERSE in unwrap(text) and prose(1, 20) in lines and prose(2, 20) in lines


def test_syllables_split_at_the_margin_are_joined_and_real_hyphens_kept():
    text = (
        "O comerciante esperava a chegada do navio que traria as encomen-\n"
        "das de Lisboa, e todas as manhãs descia até o porto para pergun-\n"
        "tar se havia notícia. O guarda, que já o conhecia bem, dizia-\n"
        "lhe sempre que não, e ele voltava devagar pela mesma rua estrei-\n"
        "ta, parando diante das vitrines como quem não tem nada para faz-\n"
        "er até a noite."
    )
    joined = unwrap(text)
    assert "encomendas de Lisboa" in joined and "perguntar se" in joined and "dizia-lhe sempre" in joined
    assert "\n" not in joined


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from("abc DE.—-\t1)"), max_size=90), max_size=30).map("\n".join))
def test_unwrapping_never_loses_a_letter(text: str):
    assert [c for c in unwrap(text) if c.isalnum()] == [c for c in text if c.isalnum()]
