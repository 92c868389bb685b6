"""What a batch does not take on: a full queue, too many keys and values; and what it leaves behind."""

from __future__ import annotations

import gc
import time
import weakref

import pytest
from batch_readers import ask, plainly, run, step, submit
from prompts import random_ids

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime import sequence
from ptbr_slm.runtime.batch import Batch, BatchLimits


def test_what_the_queue_has_no_room_for_is_refused_and_harms_nobody(toy):
    engine = toy()
    batch = Batch(engine, BatchLimits(slots=2, max_waiting=3, max_waiting_tokens=100))
    options = {"temperature": 0.0, "max_new_tokens": 5}
    running = ask(engine, random_ids(1, 9), random_ids(2, 9), **options)
    submit(batch, running)
    step(batch)
    waiting = ask(engine, random_ids(3, 60), random_ids(4, 20), **options)
    submit(batch, waiting)
    for refused in (
        ask(engine, random_ids(5, 1), random_ids(6, 1), **options),  # four sequences
        ask(engine, random_ids(5, 21), **options),  # 101 tokens
    ):
        with pytest.raises(SlmError) as error:
            submit(batch, refused)
        assert error.value.code == "E_BUSY"
    figures = batch.figures()
    assert (figures.running, figures.waiting, figures.waiting_tokens) == (2, 2, 80)
    submit(batch, ask(engine, random_ids(7, 20), **options))
    run(batch, [])
    assert all(reader.over for reader in running + waiting)
    figures = batch.figures()
    assert (figures.running, figures.waiting, figures.waiting_tokens) == (0, 0, 0)


def test_a_request_fills_the_slots_and_the_queue_and_no_more(toy):
    """A larger one is told that it will never be taken: a client that repeats at 429 would never end."""
    engine = toy()
    batch = Batch(engine, BatchLimits(slots=2, max_waiting=3, max_waiting_tokens=100))
    options = {"temperature": 0.0, "max_new_tokens": 5}
    for refused in (
        ask(engine, *(random_ids(i, 2) for i in range(6)), **options),  # four would wait
        ask(engine, *(random_ids(i, 51) for i in range(4)), **options),  # two, with 102 tokens
    ):
        with pytest.raises(SlmError) as error:
            submit(batch, refused)
        assert error.value.code == "E_REQUEST_SIZE" and "limite" in error.value.message
    taken = ask(engine, *(random_ids(i, 30) for i in range(5)), **options)
    submit(batch, taken)
    with pytest.raises(SlmError) as error:
        submit(batch, ask(engine, random_ids(9, 1), **options))
    assert error.value.code == "E_BUSY"
    run(batch, [])
    long = ask(engine, random_ids(9, 300), **options)  # begins at once, whatever its length
    submit(batch, ask(engine, random_ids(7, 9), random_ids(8, 9), **options))
    step(batch)
    submit(batch, long)  # waits alone
    run(batch, [])
    assert all(reader.over for reader in taken + long)


def test_texts_begin_as_far_as_their_keys_and_values_fit(toy):
    """From outside, before: every slot's memory followed the longest text, and nothing was counted before."""
    engine = toy()
    token_bytes = 2 * 64 * 4
    batch = Batch(engine, BatchLimits(slots=16, kv_bytes=4 * 256 * token_bytes))
    options = {"temperature": 0.0, "max_new_tokens": 20}
    short = ask(engine, *(random_ids(i, 30) for i in range(9)), **options)
    submit(batch, short)
    [long] = ask(engine, random_ids(20, 300), **options)
    submit(batch, [long])
    most, beside_long = 0, 0
    while batch.sequences:
        step(batch)
        most = max(most, batch.figures().running)
        if long.sequence.slot >= 0:
            beside_long = max(beside_long, batch.figures().running)
    assert (most, beside_long) == (4, 2)  # two slots of 512 tokens are four of 256
    assert [reader.tokens for reader in short] == [plainly(toy(), random_ids(i, 30), 20) for i in range(9)]
    [alone_too_long] = run(batch, ask(engine, random_ids(21, 490), **options))
    assert alone_too_long.tokens  # alone it may try


def test_a_queue_of_thousands_costs_a_step_next_to_nothing(toy):
    """From outside, before: 2.9 to 8 ms a step at 1,000 to 5,000; counted here as looks at sequences."""
    engine = toy()
    batch = Batch(engine)
    looks = 0

    def counted(self):
        nonlocal looks
        looks += 1
        return None

    class Watched(sequence.SequenceState):
        interruption = counted

    readers = ask(engine, *([random_ids(1, 3)] * 3000), temperature=0.0, max_new_tokens=500)
    for reader in readers:
        reader.sequence.__class__ = Watched
        submit(batch, [reader])
    start = time.perf_counter()
    for _ in range(100):
        step(batch)
    sweeps = (time.perf_counter() - start) / 0.05 + 2
    assert looks <= 100 * 16 + sweeps * 3000
    cancelled = time.perf_counter()
    batch.fail_all(lambda: SlmError("E_CLOSED", "fechado", hint="abra"))
    assert time.perf_counter() - cancelled < 1.0  # 2.4 s for 5,000 before
    assert all(reader.over for reader in readers)
    assert batch.figures().waiting == 0


def test_a_finished_request_is_freed_without_the_garbage_collector(toy):
    """Before, each was a reference cycle: 583 KB at a vocabulary of 32,000 with penalties."""
    engine = toy()
    batch = Batch(engine)
    gc.disable()
    try:
        for options in ({}, {"n": 3}, {"repetition_penalty": 1.2, "prompt_logprobs": True}, {"lookahead": 4}):
            readers = run(batch, ask(engine, random_ids(1, 20), temperature=0.0, max_new_tokens=5, **options))
            gone = [weakref.ref(reader.sequence._sampler) for reader in readers]
            del readers
            assert [ref() for ref in gone] == [None] * len(gone)
    finally:
        gc.enable()


def test_a_tenant_begins_from_no_other_tenants_text(toy):
    engine = toy()
    batch = Batch(engine)
    options = {"temperature": 0.0, "max_new_tokens": 5}
    [first] = run(batch, ask(engine, random_ids(1, 100), tenant="a", **options))
    [other] = run(batch, ask(engine, random_ids(1, 100), tenant="b", **options))
    [again] = run(batch, ask(engine, random_ids(1, 100), tenant="a", **options))
    assert [r.result.reused_tokens for r in (first, other, again)] == [0, 0, 99]
    together = [ask(engine, random_ids(2, 100), tenant=name, **options)[0] for name in "ab"]
    for reader in together:
        submit(batch, [reader])
        step(batch)
    run(batch, [])
    assert [reader.result.reused_tokens for reader in together] == [0, 0]
