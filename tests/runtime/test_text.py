"""Stop strings across token borders, and characters that are never split."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.runtime.generation.text import StopFilter, TextStream

ALPHABET = "abç"


def pieces(text: str, cuts: list[int]) -> list[str]:
    borders = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in itertools.pairwise(borders)]


def expected(text: str, stops: list[str]) -> tuple[str, bool]:
    """The plain reading: watch the text grow letter by letter until a stop string is complete."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


@settings(max_examples=400, deadline=None)
@given(
    text=st.text(ALPHABET, max_size=30),
    stops=st.lists(st.text(ALPHABET, min_size=1, max_size=5), max_size=4),
    cuts=st.lists(st.integers(0, 30), max_size=8),
)
def test_text_ends_at_the_first_complete_stop_however_it_is_cut(text, stops, cuts):
    filter_ = StopFilter(stops)
    shown = ""
    for piece in pieces(text, cuts):
        shown += filter_.push(piece)
        assert expected(text, stops)[0].startswith(shown)
    wanted, stopped = expected(text, stops)
    assert filter_.stopped == stopped
    assert shown + ("" if stopped else filter_.finish()) == wanted


@pytest.mark.parametrize(("pushed", "shown"), [("fim", "f"), ("abc", "abc"), ("o f", "o "), ("imim", "")])
def test_only_what_could_begin_a_stop_is_held_back(pushed, shown):
    assert StopFilter(["imimi", "f!", "f."]).push(pushed) == shown


def test_without_stops_nothing_is_held_back():
    filter_ = StopFilter([])
    assert filter_.push("f") == "f"
    assert filter_.finish() == ""


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_streamed_pieces_concatenate_to_the_text_and_never_split_a_character(tokenizer, data):
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40))
    stream = TextStream(tokenizer, [])
    shown = [stream.push(token) for token in ids]
    assert "".join(shown) + stream.finish() == tokenizer.decode(ids)


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=30))
def test_no_piece_of_a_real_text_holds_half_a_character(tokenizer, text):
    ids = tokenizer.encode(text, special=False)
    stream = TextStream(tokenizer, [])
    shown = [stream.push(token) for token in ids] + [stream.finish()]
    assert "".join(shown) == tokenizer.decode(ids)
    if "\ufffd" not in text:
        assert all("\ufffd" not in piece for piece in shown)
