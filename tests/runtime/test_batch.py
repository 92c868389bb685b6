"""The batch, step by step, over a toy engine: order, fairness, limits, faults, and slots that come back."""

from __future__ import annotations

import random

import pytest
from batch_readers import alone, ask, plainly, run, step, submit
from prompts import random_ids

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime import sequence
from ptbr_slm.runtime.batch import Batch, BatchLimits
from ptbr_slm.runtime.sequence import Cancel


def test_a_greedy_text_is_what_the_engine_says_token_for_token(toy):
    engine = toy()
    prompt = random_ids(1, 40)
    [reader] = run(Batch(engine), ask(engine, prompt, temperature=0.0, max_new_tokens=30))
    assert reader.tokens == plainly(toy(), prompt, 30)
    assert reader.result.tokens == tuple(reader.tokens)


@pytest.mark.parametrize("seed", range(8))
def test_any_course_of_requests_gives_each_the_text_it_has_alone(toy, seed):
    """Random prompts with shared beginnings, lengths, limits, drafts; cancellations between."""
    chance = random.Random(seed)
    precision = chance.choice(["fp32", "int8"])
    memory = chance.choice([None, 1])
    engine = toy(precision, memory)
    batch = Batch(
        engine,
        BatchLimits(
            slots=chance.randint(1, 4),
            cache_bytes=chance.choice([0, 10**6, 10**9]),
            kv_bytes=chance.choice([None, 0, 10**6]),
        ),
    )
    beginnings = [random_ids(10 + i, chance.randint(1, 300)) for i in range(3)]
    asked, pending = [], []
    for number in range(14):
        prompt = chance.choice(beginnings)[: chance.randint(1, 300)] + random_ids(
            number, chance.randint(0, 30)
        )
        options = {
            "max_new_tokens": chance.randint(1, 90),
            "temperature": chance.choice([0.0, 0.9]),
            "seed": number,
            "lookahead": chance.choice([0, 4]),
            "n": chance.choice([1, 1, 3]),
            "logprobs": chance.choice([None, 2]),
            "prompt_logprobs": chance.choice([False, True]),
        }
        cancel = Cancel() if chance.random() < 0.2 else None
        readers = ask(engine, prompt, cancel=cancel, **options)
        asked.append((prompt, options, cancel, readers))
        pending.append(readers)
    for _ in range(6000):
        if pending and chance.random() < 0.3:
            submit(batch, pending.pop(0))
        if chance.random() < 0.02:
            for _, _, cancel, _ in chance.sample(asked, 2):
                if cancel is not None:
                    cancel.cancel()
        step(batch)
        if not pending and not batch.sequences:
            break
    assert not batch.sequences
    for prompt, options, cancel, readers in asked:
        for index, reader in enumerate(readers):
            wanted = alone(
                toy(memory=memory),
                prompt,
                **{**options, "n": 1, "seed": options["seed"] + index, "lookahead": 0},
            )
            found = reader.result
            if cancel is not None and found.finish_reason == "cancelled":
                assert found.tokens == wanted.tokens[: len(found.tokens)]
                assert wanted.text.startswith(found.text) or "�" in found.text
            else:
                assert found.tokens == wanted.tokens
                assert (found.text, found.finish_reason) == (wanted.text, wanted.finish_reason)
                assert found.logprobs == wanted.logprobs
                assert found.prompt_logprobs == wanted.prompt_logprobs
            assert found.seed == options["seed"] + index
    batch.forget()
    assert engine.slots == {}


def test_short_prompts_are_prefilled_together_before_the_next_token(toy):
    engine = toy()
    batch = Batch(engine)
    readers = ask(engine, *(random_ids(i, 30) for i in range(8)), temperature=0.0, max_new_tokens=3)
    submit(batch, readers)
    step(batch)
    assert [len(reader.chunks) for reader in readers] == [1] * 8


def test_requests_beyond_the_limit_begin_in_order(toy):
    engine = toy()
    batch = Batch(engine, BatchLimits(slots=3))
    begun = []
    readers = ask(engine, *(random_ids(i, 9) for i in range(10)), temperature=0.0, max_new_tokens=6)
    for index, reader in enumerate(readers):
        reader.sequence.deliver = lambda what, index=index, take=reader.take: (
            begun.append(index),
            take(what),
        )
    run(batch, readers)
    assert list(dict.fromkeys(begun)) == list(range(10))
    assert engine.most_slots <= 6  # three in use, three kept


@pytest.mark.parametrize("seed", range(10))
def test_an_error_of_the_engine_ends_the_sequences_it_concerns_and_no_other(toy, seed):
    """A run that fails for one slot, at a random moment, while others share the batch."""
    chance = random.Random(seed)
    engine = toy()
    batch = Batch(engine, BatchLimits(slots=4))
    prompts = [random_ids(i, chance.randint(1, 300)) for i in range(9)]
    readers = ask(engine, *prompts, temperature=0.0, max_new_tokens=40)
    poisoned = chance.sample(readers, 2)
    moments = {id(reader): chance.randint(0, 330) for reader in poisoned}

    def fail(what, slots):
        for reader in poisoned:
            sequence = reader.sequence
            moment = min(moments[id(reader)], len(sequence.prompt.ids))
            if sequence.slot in slots and sequence.computed >= moment:
                for slot in slots[: chance.randint(0, len(slots))]:  # some sequences were already written
                    engine.slots[slot].append(7)
                raise RuntimeError("fora do lugar")

    engine.fail = fail
    run(batch, readers)
    for reader, prompt in zip(readers, prompts, strict=True):
        if reader in poisoned:
            assert isinstance(reader.error, RuntimeError)
        else:
            assert reader.tokens == plainly(toy(), prompt, 40)
    batch.forget()
    assert engine.slots == {}


def test_a_closed_engine_ends_every_sequence_with_its_error(toy):
    engine = toy()
    batch = Batch(engine, BatchLimits(slots=2))
    readers = ask(engine, *(random_ids(i, 9) for i in range(5)), temperature=0.0, max_new_tokens=40)
    submit(batch, readers)
    for _ in range(4):
        step(batch)
    engine.close()
    run(batch, [])
    assert {reader.error.code for reader in readers if isinstance(reader.error, SlmError)} == {"E_CLOSED"}
    assert all(reader.over for reader in readers)


def test_cancelled_before_it_begins_a_text_is_empty_and_says_so(toy):
    engine = toy()
    cancel = Cancel()
    cancel.cancel()
    [reader] = run(Batch(engine), ask(engine, random_ids(1, 9), cancel=cancel))
    assert (reader.result.text, reader.result.tokens, reader.result.finish_reason) == ("", (), "cancelled")
    assert engine.runs == []


def test_a_text_ends_within_one_token_of_its_cancellation(toy):
    engine = toy()
    batch, cancel = Batch(engine), Cancel()
    [reader] = ask(engine, random_ids(1, 9), temperature=0.0, cancel=cancel)
    submit(batch, [reader])
    for _ in range(12):
        step(batch)
    assert len(reader.chunks) == 12
    cancel.cancel()
    step(batch)
    assert reader.chunks[-1].finish_reason == "cancelled"
    assert reader.result.tokens == tuple(reader.tokens) == tuple(plainly(toy(), random_ids(1, 9), 12))
    assert reader.result.text == "".join(chunk.text for chunk in reader.chunks)


def test_out_of_time_a_text_ends_where_it_is(toy, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(sequence.time, "perf_counter", lambda: now[0])
    engine = toy()
    batch = Batch(engine)
    [reader] = ask(engine, random_ids(1, 9), temperature=0.0, timeout_s=2.0)
    submit(batch, [reader])
    for _ in range(5):
        now[0] += 0.3
        step(batch)
    now[0] += 1.0
    step(batch)
    assert reader.result.finish_reason == "timeout"
    assert len(reader.result.tokens) == 5


def test_the_sequence_of_an_abandoned_call_frees_its_slot_at_the_next_step(toy):
    engine = toy()
    batch = Batch(engine, BatchLimits(cache_bytes=0))
    [reader] = ask(engine, random_ids(1, 9), temperature=0.0)
    submit(batch, [reader])
    step(batch)
    reader.sequence.abandoned = True
    step(batch)
    assert engine.slots == {}
    assert not batch.sequences
