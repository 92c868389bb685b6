"""Scores of continuations: equal to the plain computation, however they are run."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.engine_loop import EngineLoop
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.runtime.scoring import EncodedRequest, Scorer, encode_pairs
from ptbr_slm.runtime.sequence import Cancel, PromptState, make_sequences

CLOSE = {"rel": 0, "abs": 1e-4}
"""Between engines."""
SAME = {"rel": 0, "abs": 2e-5}
"""Between ways to run on one engine: sums over some tens of tokens in fp32, whose logits span 20."""


@pytest.fixture(scope="module")
def exported(export_folder):
    with Model(export_folder, "cpu") as model:
        yield model


@pytest.fixture(scope="module")
def checkpoint(model_folder):
    with Model(model_folder, "cpu") as model:
        yield model


@pytest.fixture(params=["onnx", "torch"])
def model(request, exported, checkpoint):
    return exported if request.param == "onnx" else checkpoint


def plain_score(model, prompt, continuation):
    """(nats, is_greedy, tokens) from the logits of the whole text, which ids are written out here."""
    tokenizer, context = model.engine.tokenizer, model.engine.config.max_seq_len
    kept = prompt.rstrip()
    before = tokenizer.encode(kept)
    after = tokenizer.encode(prompt + continuation)[len(before) :]
    whole = (before + after)[-(context + 1) :]
    logits = model.logits(whole[:-1])[-len(after) :].astype(np.float64)
    logprobs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    nats = float(logprobs[np.arange(len(after)), after].sum())
    return nats, bool((logits.argmax(axis=1) == after).all()), len(after)


def assert_plain(model, prompt, continuation, score, tolerance=SAME):
    nats, greedy, tokens = plain_score(model, prompt, continuation)
    assert score.logprob == pytest.approx(nats, **tolerance)
    assert (score.is_greedy, score.tokens) == (greedy, tokens)
    assert score.bytes == len(continuation.encode())


PIECES = [
    "O rio",
    " corre",
    " devagar",
    " entre",
    "\n",
    " ",
    "  ",
    "é",
    "😀",
    " 👩‍👩‍👧",
    "<|eos|>",
    "<|bos|>",
    ",",
    "\u00a0",
    "Maria abriu a janela, olhou a rua molhada e decidiu que não iria à feira naquele dia.",
    "As crianças brincavam no quintal enquanto o avô contava histórias. ",
    "\x00",
    "a" * 30,
]
TEXT = st.lists(st.sampled_from(PIECES), max_size=4).map("".join)
REQUEST = st.tuples(TEXT, st.lists(TEXT.map(lambda text: " " + text), min_size=1, max_size=5))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(REQUEST, max_size=8))
def test_any_batch_scores_as_the_plain_computation(model, requests):
    found = model.score_batch(requests)
    assert [len(scores) for scores in found] == [len(texts) for _, texts in requests]
    for (prompt, texts), scores in zip(requests, found, strict=True):
        for text, score in zip(texts, scores, strict=True):
            assert_plain(model, prompt, text, score)


def test_order_batch_and_neighbours_change_no_score(model, texts):
    requests = [(text[:at], [text[at:], text[at : at + 9], " de"]) for text in texts for at in (5, 20, 40)]
    requests += [("", [text[:30] for text in texts]), (texts[0] + texts[1], ["!", " fim", " fim do dia"])]
    together = model.score_batch(requests)
    backwards = model.score_batch(requests[::-1])[::-1]
    alone = [[model.score(prompt, [text])[0] for text in each] for prompt, each in requests]
    for others in (backwards, alone):
        for mine, theirs in zip(together, others, strict=True):
            for one, other in zip(mine, theirs, strict=True):
                assert one.logprob == pytest.approx(other.logprob, rel=0, abs=1e-6 * one.tokens)
                assert (one.is_greedy, one.tokens, one.bytes) == (other.is_greedy, other.tokens, other.bytes)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_quantised_score_is_the_same_to_the_last_bit_in_any_company(
    model_folder, tmp_path, texts, precision
):
    from ptbr_slm_export import export_model

    export_model(model_folder, tmp_path / "export", precision=precision, verify=False)
    requests = [(text[:at], [text[at:], text[at : at + 9], " de"]) for text in texts for at in (5, 20, 41)]
    requests += [("", [text[:30] for text in texts]), (texts[0] + texts[1], ["!", " fim", " fim do dia"])]
    with Model(tmp_path / "export", "cpu") as model:
        together = model.score_batch(requests)
        assert model.score_batch(requests[::-1])[::-1] == together
        assert [[model.score(prompt, [text])[0] for text in each] for prompt, each in requests] == together


def test_an_export_scores_as_its_checkpoint(exported, checkpoint, texts):
    requests = [(text[:20], [text[20:], " de pão", "é"]) for text in texts] + [("", texts)]
    for mine, theirs in zip(exported.score_batch(requests), checkpoint.score_batch(requests), strict=True):
        for one, other in zip(mine, theirs, strict=True):
            assert one.logprob == pytest.approx(other.logprob, **CLOSE)
            assert one.is_greedy == other.is_greedy


def test_a_prompt_shared_by_many_continuations_of_any_length(model, texts):
    """More than there are branches, longer than a branch, equal ones, and one the beginning of another."""
    prompt = texts[0]
    found = [" " + texts[1][:size] for size in range(1, 60)] + [" " + " ".join(texts[1:4]), " a", " a"]
    for text, score in zip(found, model.score(prompt, found), strict=True):
        assert_plain(model, prompt, text, score)


def test_what_the_context_does_not_hold_is_cut_from_the_left_and_counted(model, texts):
    context, encode = model.engine.config.max_seq_len, model.engine.tokenizer.encode
    prompt = " ".join(texts * 4)
    long, short = model.score(prompt, [" " + texts[0], " o"])
    assert len(encode(prompt)) > context
    for text, score in ((" " + texts[0], long), (" o", short)):
        assert score.prompt_tokens_cut == len(encode(prompt + text)) - (context + 1)
        assert_plain(model, prompt, text, score)
    whole = next(prompt[:end] for end in range(len(prompt)) if len(encode(prompt[:end] + "!")) == context + 1)
    assert model.score(whole, ["!"])[0].prompt_tokens_cut == 0
    with pytest.raises(SlmError) as caught:
        model.score("O rio", [" " + prompt])
    assert caught.value.code == "E_PROMPT_TOO_LONG"


def test_the_spaces_that_end_a_prompt_are_the_continuations(model):
    ours, theirs = model.score("O rio ", ["corre"])[0], model.score("O rio", [" corre"])[0]
    assert (ours.logprob, ours.tokens) == (theirs.logprob, theirs.tokens)
    assert (ours.bytes, theirs.bytes) == (5, 6)  # of the continuation as it was given
    assert model.score("  ", ["O rio"])[0].logprob == model.score("", ["  O rio"])[0].logprob


def test_an_empty_prompt_is_the_first_token_alone(model):
    tokenizer = model.engine.tokenizer
    ids = tokenizer.encode("O rio corre")
    (pair,) = encode_pairs(tokenizer, model.engine.config, "", ["O rio corre"])
    assert pair.ids == tuple(ids[:-1]) and pair.targets == tuple(ids[1:])
    (score,) = model.score("", ["O rio corre"])
    assert score.logprob == pytest.approx(float(model.logprobs(ids).sum()), abs=1e-5)


def test_special_tokens_that_are_spelled_out_are_text(model):
    (score,) = model.score("O rio<|eos|>", ["<|bos|>corre"])
    assert score.tokens > 3
    assert score.bytes == len("<|bos|>corre")


def test_a_continuation_that_melts_into_the_prompt_is_encoded_alone(model, monkeypatch):
    tokenizer, encode = model.engine.tokenizer, type(model.engine.tokenizer).encode
    plain = {"Bra": [0, 9], "Brasil": [0, 10]}
    monkeypatch.setattr(
        type(tokenizer),
        "encode",
        lambda self, text, **options: plain.get(text) or encode(self, text, **options),
    )
    (pair,) = encode_pairs(tokenizer, model.engine.config, "Bra", ["sil"])
    assert pair.targets == tuple(encode(tokenizer, "sil", special=False))


def test_bad_requests_are_refused(model):
    for prompt, continuations in (("a", [""]), ("a", "b"), (3, ["b"]), ("a", [b"b"]), ("a", 7)):
        with pytest.raises(SlmError) as caught:
            model.score(prompt, continuations)
        assert caught.value.code == "E_PROMPT"
    assert model.score("a", []) == []
    assert model.score_batch([]) == []


def test_logprobs_are_those_of_each_token_after_the_others(model, ids):
    context = model.engine.config.max_seq_len
    for text in (ids[:2], ids[:300], [*ids, 7]):
        logits = model.logits(text[:-1]).astype(np.float64)
        logits -= np.logaddexp.reduce(logits, axis=1, keepdims=True)
        expected = logits[np.arange(len(text) - 1), text[1:]]
        np.testing.assert_allclose(model.logprobs(text), expected, rtol=0, atol=1e-5)
    assert len(model.logprobs(ids[:1])) == 0
    for text, code in (([*ids] * 2, "E_PROMPT_TOO_LONG"), ([], "E_PROMPT"), ([10**6], "E_PROMPT")):
        with pytest.raises(SlmError) as caught:
            model.logprobs(text)
        assert caught.value.code == code
    assert context + 1 == len([*ids, 7])


def toy_loop(toy, **options):
    engine = toy(**options)
    return engine, EngineLoop(engine)


def test_a_prefix_that_requests_share_runs_once(toy, texts):
    engine, loop = toy_loop(toy)
    shots = " ".join(texts)
    requests = [(f"{shots} {text}", [" de", " a"]) for text in texts]
    assert len(list(Scorer(engine, loop.turn).score(requests))) == len(texts)
    total = sum(len(engine.tokenizer.encode(prompt)) for prompt, _ in requests)
    assert sum(tokens for _, tokens in engine.runs) < total / 3
    assert engine.slots == {}


def test_requests_are_read_as_they_are_needed(toy):
    engine, loop = toy_loop(toy)
    read = 0

    def requests():
        nonlocal read
        for _ in range(1000):
            read += 1
            yield "O rio", [" corre"]

    scores = Scorer(engine, loop.turn).score(requests())
    first = next(scores)
    assert read == 256
    scores.close()
    assert engine.slots == {}
    assert first[0].tokens >= 1


def test_a_cancelled_batch_ends_with_what_is_scored(toy, texts):
    engine, loop = toy_loop(toy)
    cancel, seen = Cancel(), []

    def progress(done):
        seen.append(done)
        if done >= 3:
            cancel.cancel()

    requests = [(text[: 20 + at], [" de", " a"]) for text in texts for at in range(5)]
    found = list(Scorer(engine, loop.turn).score(requests, cancel, progress))
    assert len(found) < len(requests)
    assert seen == sorted(seen)
    whole = list(Scorer(engine, loop.turn).score(requests))
    assert found == whole[: len(found)]
    assert engine.slots == {}


def test_a_failed_run_gives_the_slots_back(toy, texts):
    engine, loop = toy_loop(toy)

    def fail(what, slots):
        raise SlmError("E_MEMORY", "acabou a memória.", hint="Feche outros programas.")

    engine.fail = fail
    with pytest.raises(SlmError):
        list(Scorer(engine, loop.turn).score([(texts[0], [" a", " de"])]))
    assert engine.slots == {}


def test_a_stream_goes_on_beside_a_long_scoring(toy, texts):
    """A text that waits has a step between any two runs of scoring, and these are short while it goes on."""
    engine, loop = toy_loop(toy)
    engine.fail = lambda what, slots: time.sleep(0.002)
    requests = [(" ".join(texts) + str(number), [" de", " a"]) for number in range(80)]
    prompts = [PromptState([1, 2, 3])]
    params = SamplingParams(max_new_tokens=500, ignore_eos=True)
    call = loop.submit(make_sequences(engine, prompts, params))
    call.next_chunk()
    scoring = threading.Thread(target=lambda: list(Scorer(engine, loop.turn).score(requests)))
    start = len(engine.runs)
    scoring.start()
    while call.next_chunk() is not None:
        pass
    mixed = engine.runs[start:]
    scoring.join()
    runs = "".join("s" if what == "decode" else "S" for what, _ in mixed)
    assert runs.count("S") >= 50
    assert max(map(len, runs.split("s"))) <= 2  # at most two turns without a step of the stream
    assert max(tokens for what, tokens in mixed if what == "extend") <= 64
    loop.forget()
    assert engine.slots == {}


def test_scoring_in_many_threads_beside_a_stream(exported, texts):
    requests = [(text[:30], [text[30:], " de pão"]) for text in texts]
    expected, text = exported.score_batch(requests), exported.generate(texts[0], max_new_tokens=40, seed=1)
    found, streamed = [], []
    threads = [
        threading.Thread(target=lambda: found.append(exported.score_batch(requests))) for _ in range(3)
    ]
    threads.append(
        threading.Thread(target=lambda: streamed.extend(exported.stream(texts[0], max_new_tokens=40, seed=1)))
    )
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert "".join(chunk.text for chunk in streamed) == text
    assert found == [expected] * 3


def test_a_closed_model_scores_nothing(model_folder):
    model = Model(model_folder, "cpu")
    scores = model.score_each([("O rio", [" corre"])] * 600)
    next(scores)
    model.close()
    with pytest.raises(SlmError) as caught:
        list(scores)
    assert caught.value.code == "E_CLOSED"


def test_ids_are_scored_as_they_are(model, texts):
    """A conversation's ids hold control tokens, which no text gives."""
    tokenizer = model.engine.tokenizer
    prompt = (tokenizer.token_id("<|im_start|>"), *tokenizer.encode(texts[0][:20], special=False))
    ends = [tuple(tokenizer.encode(text, special=False)) for text in (" café", "é", texts[1][:30])]
    long = EncodedRequest(prompt * 60, tuple(ends[:1]))
    found, (cut,) = model.score_batch([EncodedRequest(prompt, tuple(ends)), long])
    for score, ids in zip(found, ends, strict=True):
        nats = model.logprobs([*prompt, *ids])[-len(ids) :].sum()
        assert score.logprob == pytest.approx(float(nats), **SAME)
        assert score.tokens == len(ids) and score.bytes == len(tokenizer.decode(ids).encode())
    context = model.engine.config.max_seq_len
    assert cut.prompt_tokens_cut == len(prompt) * 60 + len(ends[0]) - (context + 1) > 0
    for bad in (
        EncodedRequest((), ends[:1]),
        EncodedRequest(prompt, ((),)),
        EncodedRequest((10**6,), ends[:1]),
    ):
        with pytest.raises(SlmError) as caught:
            model.score_batch([bad])
        assert caught.value.code == "E_PROMPT"
