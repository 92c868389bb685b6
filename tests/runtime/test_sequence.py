"""Stop strings across token borders, and characters that are never split."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.runtime.sequence import StopFilter, TextStream

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


def any_split(tokenizer, text: str, random) -> list[int]:
    """Ids whose bytes are those of `text`, at each place any token that fits: not as the tokenizer would."""
    by_bytes = {tokenizer.token_bytes(i): i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i)}
    longest = max(map(len, by_bytes))
    raw, ids, at = text.encode("utf-8"), [], 0
    while at < len(raw):
        ends = [end for end in range(at + 1, min(at + longest, len(raw)) + 1) if raw[at:end] in by_bytes]
        end = random.choice(ends)
        ids.append(by_bytes[raw[at:end]])
        at = end
    return ids


@settings(max_examples=150, deadline=None)
@given(data=st.data(), random=st.randoms(use_true_random=False))
def test_a_stop_is_found_in_any_text_however_tokens_split_it(tokenizer, data, random):
    text = data.draw(st.text("ação dé🙂\n.", max_size=24) | st.text(max_size=16))
    stops = data.draw(st.lists(st.text("ação dé🙂\n.", min_size=1, max_size=4), max_size=3))
    if text:  # and one that is there
        start = data.draw(st.integers(0, len(text) - 1))
        stops += data.draw(st.just([]) | st.just([text[start : start + 3]]))
    stream = TextStream(tokenizer, stops)
    shown = ""
    for token in any_split(tokenizer, text, random):
        shown += stream.push(token)
        if stream.stopped:
            break
    wanted, stopped = expected(text, stops)
    assert stream.stopped == stopped
    assert shown + ("" if stopped else stream.finish()) == wanted


def test_a_character_that_never_ends_still_completes_a_stop(tokenizer):
    """Half an é at the end becomes U+FFFD, which here is the stop."""
    half = next(i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) == b"\xc3")
    stream = TextStream(tokenizer, ["\ufffd"])
    assert stream.push(half) == "" and not stream.stopped
    assert stream.finish() == "" and stream.stopped


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=30))
def test_no_piece_of_a_real_text_holds_half_a_character(tokenizer, text):
    ids = tokenizer.encode(text, special=False)
    stream = TextStream(tokenizer, [])
    shown = [stream.push(token) for token in ids] + [stream.finish()]
    assert "".join(shown) == tokenizer.decode(ids)
    if "\ufffd" not in text:
        assert all("\ufffd" not in piece for piece in shown)
