"""What ends a text and what it says of it; stop strings across token borders; characters that stay whole."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.prompt import TokenPrompt
from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.runtime.sequence import PromptState, StopFilter, TextStream, make_sequences

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
    assert bool(filter_.stopped) == stopped
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
    assert bool(stream.stopped) == stopped
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


@settings(max_examples=400, deadline=None)
@given(
    text=st.text(ALPHABET, max_size=20),
    stops=st.lists(st.text(ALPHABET, min_size=1, max_size=5), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 20), max_size=8),
    deaf=st.integers(0, 5),
)
def test_a_stop_counts_where_it_ends_after_the_tokens_that_may_not_end_the_text(text, stops, cuts, deaf):
    """vLLM's reading: it looks for stops that end in the text of later tokens; they may begin before."""
    given_pieces = pieces(text, cuts)
    border = len("".join(given_pieces[:deaf]))
    ends = [(at + len(stop), at) for stop in stops for at in range(len(text)) if text.startswith(stop, at)]
    counted = [found for found in ends if found[0] > border]
    wanted = text[: min(counted)[1]] if counted else text
    filter_, shown = StopFilter(stops), ""
    for number, piece in enumerate(given_pieces):
        shown += filter_.push(piece, stops=number >= deaf)
        assert wanted.startswith(shown)
    assert (filter_.stopped in stops) == bool(counted)
    assert shown + ("" if filter_.stopped else filter_.finish()) == wanted


def test_the_stop_that_was_met_is_named_as_it_was_given():
    decomposed = "e\u0301"  # NFD
    for stop, text in (("fim", "o fim."), (decomposed, "café"), (decomposed, "cafe\u0301"), ("é", "café")):
        filter_ = StopFilter([stop, "nunca"])
        filter_.push(text)
        assert filter_.stopped == stop


END, TURN_END = 2, 9
PROMPT = [20, 21, 22]


def sequence_of(engine, **options):
    prompt = PromptState(PROMPT, end_ids=frozenset({TURN_END}))
    [sequence] = make_sequences(engine, [prompt], SamplingParams(temperature=0.0, **options))
    return sequence


def feed(sequence, tokens):
    """The result of a text whose most probable tokens are these, and the chunks before."""
    chunks = []
    for token in tokens:
        logits = np.zeros(sequence._vocab_size, dtype=np.float32)
        logits[token] = 1.0
        chunks.append(sequence.advance(logits))
        if chunks[-1].result is not None:
            break
    return chunks[-1].result, chunks


@pytest.fixture
def words(toy, tokenizer):
    """An engine that ends texts at `END`, and the ids of "a", "b" and "c"."""
    engine = toy()
    engine.config = dataclasses.replace(engine.config, eos_token_ids=(END,))
    return engine, *(tokenizer.encode(letter, special=False)[0] for letter in "abc")


@pytest.mark.parametrize("end", [END, TURN_END])
def test_an_end_token_ends_the_text_with_eos_and_no_match(words, end):
    engine, a, b, _ = words
    result, _ = feed(sequence_of(engine), [a, end, b])
    assert (result.text, result.tokens, result.finish_reason) == ("a", (a, end), "eos")
    assert result.stop_match is None


@pytest.mark.parametrize("end", [END, TURN_END])
def test_an_ignored_end_token_is_a_token_without_text(words, end):
    engine, a, b, _ = words
    result, chunks = feed(sequence_of(engine, ignore_eos=True, max_new_tokens=4), [a, end, b, end])
    assert (result.text, result.tokens, result.finish_reason) == ("ab", (a, end, b, end), "length")
    assert [chunk.text for chunk in chunks] == ["a", "", "b", ""]
    assert [chunk.token for chunk in chunks] == [a, end, b, end]


def test_a_stop_token_ends_the_text_gives_none_and_is_named(words):
    engine, a, b, c = words
    result, _ = feed(sequence_of(engine, stop_token_ids=(c, b), stop=("ax",)), [a, b, c])
    assert (result.text, result.tokens, result.finish_reason) == ("a", (a, b), "stop")
    assert result.stop_match == b


@pytest.mark.parametrize(("ignore_eos", "reason", "match"), [(False, "eos", None), (True, "stop", END)])
def test_an_end_token_that_is_a_stop_token_too_is_the_model_s_unless_ignored(
    words, ignore_eos, reason, match
):
    engine, a, _, _ = words
    result, _ = feed(sequence_of(engine, ignore_eos=ignore_eos, stop_token_ids=(END,)), [a, END])
    assert (result.finish_reason, result.stop_match) == (reason, match)


def test_a_stop_string_is_named(words):
    engine, a, b, c = words
    result, _ = feed(sequence_of(engine, stop=("bc", "zz")), [a, b, c])
    assert (result.text, result.finish_reason, result.stop_match) == ("a", "stop", "bc")


def test_nothing_ends_a_text_before_min_tokens(words):
    engine, a, b, c = words
    sequence = sequence_of(engine, min_tokens=3, stop=("ab",), stop_token_ids=(c,))
    chosen = []
    for token in (a, b, c, END, a, b):
        logits = np.zeros(sequence._vocab_size, dtype=np.float32)
        logits[token], logits[a] = 2.0, 1.0
        chosen.append(sequence.advance(logits))
    assert [chunk.token for chunk in chosen[:3]] == [a, b, a]  # c may not end the text: the next best
    assert chosen[3].result is not None and chosen[3].result.finish_reason == "eos"
    assert chosen[3].result.text == "aba"


def test_a_stop_string_may_begin_before_min_tokens_and_end_after(words):
    engine, a, b, c = words
    result, _ = feed(sequence_of(engine, min_tokens=3, stop=("abc", "ab")), [a, b, a, b, c])
    assert (result.text, result.tokens, result.stop_match) == ("ab", (a, b, a, b), "ab")


def test_a_text_cut_before_min_tokens_ends_with_what_it_has(words):
    """The limit of time comes first; and half a stop string held back is shown."""
    engine, a, b, _ = words
    sequence = sequence_of(engine, min_tokens=5, stop=("ab",))
    feed(sequence, [a, b])
    result = sequence.end("timeout").result
    assert (result.text, result.finish_reason, result.stop_match) == ("ab", "timeout", None)


def test_times_follow_one_another(words):
    engine, a, b, c = words
    sequence = sequence_of(engine, max_new_tokens=3)
    sequence.mark_admitted()
    result, _ = feed(sequence, [a, b, c])
    assert min(result.queue_s, result.prefill_s, result.decode_s) > 0
    assert result.queue_s + result.prefill_s == pytest.approx(result.time_to_first_token_s)
    assert result.tokens_per_second == pytest.approx(2 / result.decode_s)


def test_a_text_that_never_had_a_slot_was_in_the_queue_all_the_time(words):
    result = sequence_of(words[0]).end("cancelled").result
    assert result.queue_s == result.time_to_first_token_s > 0
    assert result.prefill_s == result.decode_s == 0


def test_only_the_first_slot_ends_the_time_in_the_queue(words):
    sequence = sequence_of(words[0])
    sequence.mark_admitted()
    first = sequence._admitted_at
    sequence.mark_admitted()
    assert sequence._admitted_at == first


@pytest.mark.parametrize("n", [1, 3])
def test_no_token_wanted_and_no_scores_runs_nothing(toy, n):
    engine = toy()
    with Model.over(engine, Path("toy")) as model:
        results = model.generate_detailed([TokenPrompt(tuple(PROMPT))], max_new_tokens=0, n=n, seed=1)
    assert engine.runs == []
    assert [(r.text, r.tokens, r.finish_reason) for r in results] == [("", (), "length")] * n
    assert all(r.time_to_first_token_s > 0 and r.tokens_per_second == 0 for r in results)


@pytest.mark.parametrize("n", [1, 3])
def test_no_token_wanted_but_scores_runs_the_prompt_once(toy, n):
    ids = tuple(range(30, 30 + 300))  # two chunks
    options = {"prompt_logprobs": True, "logprobs": 2, "seed": 1}
    with Model.over(toy(), Path("toy")) as model:
        [wanted] = model.generate_detailed([TokenPrompt(ids)], max_new_tokens=1, **options)
    engine = toy()
    with Model.over(engine, Path("toy")) as model:
        chunks = list(model.stream([TokenPrompt(ids)], max_new_tokens=0, n=n, **options))
    assert sum(tokens for _, tokens in engine.runs) == len(ids)
    assert len(chunks) == n
    for chunk in chunks:
        assert (chunk.text, chunk.token, chunk.finish_reason) == ("", -1, "length")
        assert chunk.result.prompt_logprobs == wanted.prompt_logprobs
        assert (chunk.result.tokens, chunk.result.logprobs) == ((), ())


@pytest.mark.parametrize("n", [1, 3])
def test_the_first_place_s_logits_come_whole_and_as_the_model_has_them(toy, n):
    ids = tuple(range(30, 30 + 300))  # two chunks
    engine = toy()
    wanted = engine.logits(ids)[-1][: engine.tokenizer.vocab_size]
    asked = {"first_logits": True, "n": n, "seed": 1, "logit_bias": {5: -100.0}, "repetition_penalty": 2.0}
    with Model.over(engine, Path("toy")) as model:
        alone = model.generate_detailed([TokenPrompt(ids)], max_new_tokens=0, **asked)
        before = model.generate_detailed([TokenPrompt(ids)], max_new_tokens=4, **asked)
        [without] = model.generate_detailed([TokenPrompt(ids)], max_new_tokens=4, seed=1)
    for result in (*alone, *before):
        np.testing.assert_array_equal(result.first_logits, wanted)
    assert [(r.tokens, r.finish_reason) for r in alone] == [((), "length")] * n
    assert before[0].reused_tokens > 0 and len(before[0].tokens) == 4
    assert without.first_logits is None
