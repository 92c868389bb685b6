"""Texts that begin alike: what is taken over, copied or run again, and that it changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from batch_readers import step
from near_ties import assert_same_tokens
from prompts import random_ids

from ptbr_slm.runtime.batch import Batch, BatchLimits
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.runtime.sequence import PromptState, make_sequences


def start(batch, engine, *prompts, **options):
    params = SamplingParams(**{"temperature": 0.0, "max_new_tokens": 5, **options})
    sequences = make_sequences(engine, [PromptState(ids) for ids in prompts], params)
    found = []
    for sequence in sequences:
        sequence.deliver = found.append
    batch.submit(sequences)
    return found


def run(batch, engine, *prompts, **options):
    """Results in the order of the prompts and completions."""
    found = start(batch, engine, *prompts, **options)
    while batch.sequences:
        step(batch)
    results = {(chunk.row, chunk.completion): chunk.result for chunk in found if chunk.result}
    return [results[key] for key in sorted(results)]


def prefilled(engine):
    return sum(tokens for what, tokens in engine.runs if what in ("prefill", "extend"))


def test_a_prompt_run_before_is_not_run_again_but_for_its_last_token(toy):
    engine = toy()
    batch = Batch(engine)
    [first] = run(batch, engine, random_ids(1, 100))
    assert (first.reused_tokens, prefilled(engine)) == (0, 100)
    [again] = run(batch, engine, random_ids(1, 100))
    assert (again.reused_tokens, prefilled(engine)) == (99, 101)
    assert again.tokens == first.tokens


def test_a_conversation_costs_what_is_new_in_it(toy):
    engine = toy()
    batch = Batch(engine)
    [answer] = run(batch, engine, random_ids(1, 100), max_new_tokens=20)
    text = [*random_ids(1, 100), *answer.tokens, *random_ids(2, 30)]
    [second] = run(batch, engine, text)
    assert second.reused_tokens == 119  # all but the last token of the answer: nobody ever ran that
    assert second.tokens == run(Batch(toy()), toy(), text)[0].tokens
    assert len(engine.slots) == 1


def test_with_rounding_kernels_only_aligned_tokens_of_a_prefill_are_taken(toy):
    engine = toy("int4")
    batch = Batch(engine)
    [answer] = run(batch, engine, random_ids(1, 100), max_new_tokens=20)
    text = [*random_ids(1, 100), *answer.tokens, *random_ids(2, 30)]
    assert run(batch, engine, text)[0].reused_tokens == 96
    assert run(batch, engine, random_ids(1, 97))[0].reused_tokens == 80  # two tokens at least are run again


def test_of_a_long_text_a_short_beginning_is_copied_and_the_text_stays(toy):
    engine = toy()
    batch = Batch(engine)
    run(batch, engine, random_ids(1, 200))
    [other] = run(batch, engine, random_ids(1, 50) + random_ids(2, 50))
    assert other.reused_tokens == 50
    assert run(batch, engine, random_ids(1, 200))[0].reused_tokens == 199
    assert run(batch, engine, random_ids(1, 50) + random_ids(2, 50))[0].reused_tokens == 99


def test_a_text_in_the_making_lends_its_beginning(toy):
    engine = toy()
    batch = Batch(engine)
    start(batch, engine, random_ids(1, 100), max_new_tokens=200)
    for _ in range(5):
        step(batch)
    [other] = [chunk.result for chunk in start_and_wait(batch, engine, random_ids(1, 90) + random_ids(2, 9))]
    assert other.reused_tokens == 90
    assert other.tokens == run(Batch(toy()), toy(), random_ids(1, 90) + random_ids(2, 9))[0].tokens


def start_and_wait(batch, engine, prompt):
    found = start(batch, engine, prompt)
    while not any(chunk.result for chunk in found):
        step(batch)
    return [chunk for chunk in found if chunk.result]


def test_completions_of_one_prompt_run_it_once(toy):
    engine = toy()
    batch = Batch(engine, BatchLimits(slots=3))
    results = run(batch, engine, random_ids(1, 300), n=8, seed=4, temperature=0.9, max_new_tokens=30)
    assert prefilled(engine) == 300
    assert [result.seed for result in results] == list(range(4, 12))
    assert len({result.tokens for result in results}) == 8
    assert [result.reused_tokens for result in results] == [0] + [300] * 7
    for result in results[::3]:
        [alone] = run(
            Batch(toy()), toy(), random_ids(1, 300), seed=result.seed, temperature=0.9, max_new_tokens=30
        )
        assert alone.tokens == result.tokens


def test_prompt_logprobs_run_the_whole_prompt_and_change_no_text(toy):
    engine = toy()
    batch = Batch(engine)
    [plain] = run(batch, engine, random_ids(1, 300))
    [found] = run(batch, engine, random_ids(1, 300), prompt_logprobs=True, logprobs=2)
    assert found.reused_tokens == 0
    assert found.tokens == plain.tokens
    assert found.prompt_logprobs[0] is None
    assert [entry.token for entry in found.prompt_logprobs[1:]] == random_ids(1, 300)[1:]
    assert all(entry.logprob <= 0 and len(entry.top) == 2 for entry in found.prompt_logprobs[1:])


def test_kept_texts_stay_within_their_bytes_and_go_the_oldest_first(toy):
    engine = toy()
    token_bytes = 2 * 64 * 4
    batch = Batch(engine, BatchLimits(cache_bytes=3 * 256 * token_bytes))
    for seed in range(6):
        run(batch, engine, random_ids(seed, 50))
        assert len(engine.slots) <= 3
    assert run(batch, engine, random_ids(5, 50))[0].reused_tokens == 49
    assert run(batch, engine, random_ids(1, 50))[0].reused_tokens == 0


def test_after_a_burst_of_long_texts_nothing_is_kept(toy):
    """The engine's buffers are as wide as their longest text and shrink when no slot is open."""
    engine = toy()
    batch = Batch(engine, BatchLimits(cache_bytes=4 * 512 * 2 * 64 * 4))
    run(batch, engine, *(random_ids(seed, 300) for seed in range(10)))
    assert engine.slots == {}
    run(batch, engine, random_ids(1, 300))
    assert len(engine.slots) == 1


def test_an_engine_that_was_reset_lends_nothing(toy):
    engine = toy()
    batch = Batch(engine)
    [first] = run(batch, engine, random_ids(1, 50))
    engine.slots = {0: []}
    [again] = run(batch, engine, random_ids(1, 50))
    assert (again.reused_tokens, again.tokens) == (0, first.tokens)


@pytest.fixture(scope="module")
def models(model_folder, tmp_path_factory):
    """The small model in three precisions."""
    from ptbr_slm_export import export_model

    opened = {}
    for precision in ("fp32", "int8", "int4"):
        path = tmp_path_factory.mktemp("prefix") / precision
        export_model(model_folder, path, precision=precision, verify=False)
        opened[precision] = Model(path)
    yield opened
    for model in opened.values():
        model.close()


TURNS = ["O rio corre devagar para o mar, e a menina olha", " o céu. De noite", ", quando a lua", " chega"]


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_new_tokens": 37, "temperature": 0.0}, "length"),
        ({"max_new_tokens": 60, "seed": 3, "temperature": 0.8, "stop": ("a",)}, "stop"),
        ({"max_new_tokens": 200, "temperature": 0.0}, "cancelled"),
    ],
)
def test_stopping_early_and_going_on_equals_a_fresh_run(models, precision, options, reason):
    """onnxruntime-genai 0.18 loses the last sampled token here (microsoft/onnxruntime-genai#1110, #1814).

    Each turn goes on from the text so far and more; a model that has forgotten everything must say the same.
    """
    from ptbr_slm.runtime.sequence import Cancel

    model = models[precision]
    encode = model.engine.tokenizer.encode
    model.forget()
    sampling = {name: options[name] for name in options if name == "temperature"}
    text, reused = "", []
    for number, turn in enumerate(TURNS):
        text += turn
        cancel = Cancel()
        chunks = []
        for chunk in model.stream(text, cancel=cancel, **options):
            chunks.append(chunk)
            if reason == "cancelled" and len(chunks) == 11 + number:
                cancel.cancel()
        result = chunks[-1].result
        assert result.finish_reason in (reason, "eos", "length")
        reused.append(result.reused_tokens)
        fresh = run(Batch(model.engine, BatchLimits(cache_bytes=0)), model.engine, encode(text), **options)[0]
        wanted = fresh.tokens[: len(result.tokens)] if reason == "cancelled" else fresh.tokens
        if precision == "fp32":  # its last bits depend on how many tokens run at once
            assert_same_tokens(model, encode(text), result.tokens, wanted, options.get("seed", 0), **sampling)
        else:
            assert result.tokens == wanted
        text += result.text
    assert reused[0] == 0
    assert all(later >= (16 if precision == "fp32" else 0) for later in reused[1:])
    assert max(reused) >= 16


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantised_logits_after_a_reused_beginning_are_equal_to_the_last_bit(models, precision):
    """What `slot_pool.GRAIN` promises, on whatever CPU this runs."""
    engine = models[precision].engine
    ids = random_ids(9, 233)
    source, fresh, taken = (engine.open_slot() for _ in range(3))
    try:
        engine.prefill(source, ids[:151])
        wanted = engine.extend(fresh, ids)
        for length in (16, 48, 144):
            engine.truncate(taken, 0)
            engine.copy_prefix(source, taken, length)
            np.testing.assert_array_equal(engine.extend(taken, ids[length:]), wanted[length:])
    finally:
        for slot in (source, fresh, taken):
            engine.close_slot(slot)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_reused_beginning_changes_no_log_probability_of_a_quantised_model(models, precision):
    """401 tokens: two pieces of prefill, the last of an odd length. Equal floats, not close ones."""
    engine = models[precision].engine
    ids = random_ids(4, 401)
    options = {"max_new_tokens": 12, "temperature": 0.8, "seed": 1, "logprobs": 0}
    [fresh] = run(Batch(engine, BatchLimits(cache_bytes=0)), engine, ids, **options)
    batch = Batch(engine)
    run(batch, engine, ids[:150], n=2, seed=3)
    [found] = run(batch, engine, ids, **options)
    assert found.reused_tokens == 144
    assert (found.tokens, found.logprobs) == (fresh.tokens, fresh.logprobs)
    batch.forget()
