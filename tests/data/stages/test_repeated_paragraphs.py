"""Paragraphs repeated over documents go from the third document on, in fixed memory."""

from __future__ import annotations

import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.data.document import REASONS, REPAIRS, Document
from ptbr_slm.data.stages.repeated_paragraphs import RecentlySeen, RepeatedParagraphs
from ptbr_slm.data.stages.stage import Dropped

NOTICE = "Esta página foi impressa do portal da cidade em 12/03/2021, e não substitui o diário oficial."


def own(number: int) -> str:
    return "".join(random.Random(number).choices("abcdefghij ", k=80))


def test_a_paragraph_stays_in_the_first_documents_and_goes_from_the_later():
    step = RepeatedParagraphs()
    answers = [step(Document(f"{own(number)}\n{NOTICE}", "a")) for number in range(5)]
    assert [isinstance(a, Document) and NOTICE in a.text for a in answers] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert isinstance(answers[4], Document)
    assert answers[4].attributes == {"repairs": "repeated_paragraphs"} and answers[4].text == own(4)


def test_dates_case_and_spaces_do_not_matter():
    step = RepeatedParagraphs(copies=1)
    step(Document(NOTICE, "a"))
    other = NOTICE.replace("12/03/2021", "1/9/2023").upper().replace(" ", "  ")
    assert step(Document(other, "b")) == Dropped("only_repeated_paragraphs")
    assert "only_repeated_paragraphs" in REASONS and "repeated_paragraphs" in REPAIRS


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("17,75%", "18,25%", False),
        ("0.13.0", "0.14.0", False),
        ("9.784/99", "9.785/99", False),
        ("PL 12/2003", "PL 13/2003", False),
        ("1/2/2023", "1/2-2023", False),
        ("2021-03-12", "2020-12-01", True),
        ("12.03.2021", "1.4.2022", True),
        ("1/4/22", "12/03/21", True),
        ("14h05", "9h30min", True),
        ("14:05:59", "8:00", True),
    ],
)
def test_figures_that_are_no_date_matter(first: str, second: str, same: bool):
    step = RepeatedParagraphs(copies=1)
    sentence = "Ao fim do encontro, o comitê decidiu e mandou publicar o que está em {}, sem voto contrário."
    step(Document(sentence.format(first), "a"))
    assert (step(Document(sentence.format(second), "b")) == Dropped("only_repeated_paragraphs")) is same


def test_short_lines_and_repeats_inside_a_document_stay():
    step = RepeatedParagraphs(copies=1)
    first = Document(f"CAPÍTULO I\n{NOTICE}\n{NOTICE}", "a")
    assert step(first) is first
    second = Document(f"CAPÍTULO I\n{own(1)}", "b")
    assert step(second) is second


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=60))
def test_what_was_added_is_known_until_more_than_the_capacity_came(identities: list[int]):
    seen = RecentlySeen(1 << 10)
    for identity in identities:
        seen.add(identity)
    assert not any(seen.add(identity) for identity in identities[-seen.capacity // 2 :])


def test_memory_is_fixed_and_false_positives_are_rare_when_it_is_full():
    seen = RecentlySeen(1 << 14)
    random_ = random.Random(3)
    false = sum(not seen.add(random_.getrandbits(64)) for _ in range(20_000))
    assert len(seen._newer) == len(seen._older) == 1 << 13
    assert false < 20_000 * 1e-3


def test_a_run_that_was_cut_off_gives_the_same_answers():
    pages = [Document(f"{own(number % 40)}\n{NOTICE}\n{own(number)}", "a") for number in range(120)]
    whole = RepeatedParagraphs(memory=1 << 10)
    answers = [whole(page) for page in pages]
    first = RepeatedParagraphs(memory=1 << 10)
    for page in pages[:57]:
        first(page)
    file = io.BytesIO()
    first.save(file)
    file.seek(0)
    second = RepeatedParagraphs(memory=1 << 10)
    second.load(file)
    assert [second(page) for page in pages[57:]] == answers[57:]
