"""A sample within a budget: whole texts where they fit, the same for a seed, every piece with one chance."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer.sample import PIECE_CHARACTERS, pieces, sample_texts


def size(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def test_texts_that_fit_come_back_whole_and_in_order():
    texts = ["curto", "", "linha de texto\n" * 5_000, "a" * 50_000, "fim"]
    assert list(sample_texts(texts, size(texts))) == texts


def test_a_sample_keeps_the_budget_and_depends_on_the_seed_alone():
    texts = [f"documento {number} " + "com palavras de verdade " * (number % 50) for number in range(500)]
    first = list(sample_texts(texts, 50_000, seed=1))
    assert 45_000 < size(first) <= 50_000
    assert first == list(sample_texts(iter(texts), 50_000, seed=1))
    assert first != list(sample_texts(texts, 50_000, seed=2))
    assert [text for text in texts if text in set(first)] == first


def test_each_place_of_the_stream_has_the_same_chance():
    drawn: Counter[int] = Counter()
    for seed in range(200):
        for text in sample_texts((f"{number:04d}" for number in range(100)), 80, seed=seed):
            drawn[int(text) // 25] += 1
    assert sum(drawn.values()) == 200 * 20
    assert all(850 < drawn[quarter] < 1_150 for quarter in range(4))  # 1,000 each, sd 25


def test_one_huge_text_gives_a_part_and_not_all_of_the_sample():
    huge = " ".join(f"palavra{number}" for number in range(400_000))
    sampled = list(sample_texts(["começo", huge, *["texto pequeno " * 500] * 200], 500_000))
    from_huge = size([text for text in sampled if "palavra" in text])
    assert 300_000 < from_huge < 480_000 and size(sampled) <= 500_000


def test_memory_holds_the_budget_and_not_the_stream():
    def stream() -> Iterator[str]:
        for number in range(2_000):
            yield f"{number} " * 4_000

    tracemalloc.start()
    sampled = sample_texts(stream(), 1_000_000)
    assert size(list(sampled)) <= 1_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6_000_000  # the stream has 38 million characters


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["a", "ção ", "\n", " ", "x" * 5_000, "日本 " * 3_000]), max_size=12))
def test_pieces_join_to_the_text_and_none_is_too_long(units: list[str]):
    text = "".join(units)
    cut = list(pieces(text))
    assert "".join(cut) == text
    assert all(0 < len(piece) <= PIECE_CHARACTERS for piece in cut) or text == ""


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(SlmError, match="ao menos um byte"):
        sample_texts(["a"], 0)
