"""Threads over one batch: each text as it is alone, unread ones block nobody, errors reach their own."""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from near_ties import assert_same_but_for_near_ties
from prompts import random_ids

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.engine_loop import EngineLoop
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.runtime.sequence import MAX_UNREAD, Cancel, PromptState, make_sequences


@pytest.fixture(autouse=True)
def quick_switches():
    """Threads change places every 20 microseconds: what can go wrong between two lines does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)
    yield
    sys.setswitchinterval(before)


def ask(scheduler, engine, *prompts, cancel=None, **options):
    states = [PromptState(ids) for ids in prompts]
    return scheduler.submit(make_sequences(engine, states, SamplingParams(**options), cancel))


def read(call):
    chunks = []
    while (chunk := call.next_chunk()) is not None:
        chunks.append(chunk)
    return chunks


def alone(engine, prompt, **options):
    return read(ask(EngineLoop(engine), engine, prompt, **options))[-1].result


@contextmanager
def at_once(*works, seconds=60):
    """Run functions in threads beside the block; what they raise is raised here, and none may hang."""
    failures = []

    def guarded(work):
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=[work], daemon=True) for work in works]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(seconds)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if failures:
        raise failures[0]


def test_eight_threads_get_the_texts_they_get_alone(toy):
    """Random lengths, greedy and drawn, some cancelled from a ninth thread, some left in the middle."""
    engine = toy()
    scheduler = EngineLoop(engine)
    cancels: list[Cancel] = []

    def client(number):
        chance = random.Random(number)
        for turn in range(6):
            seed = 100 * number + turn
            prompt = random_ids(chance.randint(0, 3), chance.randint(1, 300))
            options = {
                "max_new_tokens": chance.randint(1, 60),
                "temperature": chance.choice([0.0, 0.9]),
                "seed": seed,
            }
            cancel = Cancel()
            cancels.append(cancel)
            call = ask(scheduler, engine, prompt, cancel=cancel, **options)
            if chance.random() < 0.2:
                call.next_chunk()
                call.close()
                continue
            chunks = read(call)
            wanted = alone(toy(), prompt, **options)
            found = chunks[-1].result
            assert [chunk.token for chunk in chunks if chunk.token >= 0] == list(found.tokens)
            assert "".join(chunk.text for chunk in chunks) == found.text
            if found.finish_reason == "cancelled":
                assert found.tokens == wanted.tokens[: len(found.tokens)]
            else:
                assert (found.tokens, found.text) == (wanted.tokens, wanted.text)

    def meddler():
        for _ in range(15):
            time.sleep(0.01)
            if cancels:
                random.Random(len(cancels)).choice(cancels).cancel()

    with at_once(meddler, *(lambda n=n: client(n) for n in range(8))):
        pass
    scheduler.forget()
    assert engine.slots == {}
    assert max(tokens for what, tokens in engine.runs if what == "decode") > 1  # they did share steps


def test_threads_on_a_real_export_get_the_texts_they_get_alone(export_folder):
    prompts = ["O rio corre devagar", "Maria", "O rio corre", "As crianças brincavam no quintal"]
    options = [
        {"max_new_tokens": 30, "temperature": 0.0},
        {"max_new_tokens": 20, "seed": 4},
        {"max_new_tokens": 40, "seed": 9, "repetition_penalty": 1.2},
        {"max_new_tokens": 25, "temperature": 0.0, "lookahead": 4},
    ]
    work = [(prompt, option) for prompt in prompts for option in options]
    with Model(export_folder) as model:
        wanted = [model.generate_detailed(prompt, **option) for prompt, option in work]
        found = {}

        def client(number):
            for at in range(number, len(work), 8):
                found[at] = model.generate_detailed(work[at][0], **work[at][1])

        with at_once(*(lambda n=n: client(n) for n in range(8))):
            pass
        for at, (prompt, option) in enumerate(work):
            assert_same_but_for_near_ties(model, prompt, found[at], wanted[at], **option)


def test_two_hundred_clients_share_a_batch_of_sixteen(toy):
    engine = toy()
    scheduler = EngineLoop(engine)
    found = {}

    def client(number):
        found[number] = read(ask(scheduler, engine, random_ids(number, 20), max_new_tokens=8, seed=number))

    with at_once(*(lambda n=n: client(n) for n in range(200))):
        pass
    assert len(found) == 200
    assert max(tokens for what, tokens in engine.runs if what == "decode") <= 16
    assert engine.most_slots <= 32
    for number in (0, 77, 199):
        wanted = alone(toy(), random_ids(number, 20), max_new_tokens=8, seed=number)
        assert found[number][-1].result.tokens == wanted.tokens


def test_a_call_that_nobody_reads_blocks_nobody_and_stays_bounded(toy):
    engine = toy()
    scheduler = EngineLoop(engine)
    unread = [
        ask(scheduler, engine, random_ids(n, 9), temperature=0.0, max_new_tokens=400) for n in range(20)
    ]
    for n in range(6):
        result = read(ask(scheduler, engine, random_ids(50 + n, 9), max_new_tokens=100, seed=n))[-1].result
        assert len(result.tokens) == 100 or result.finish_reason == "eos"
    assert all(len(call.ready) <= MAX_UNREAD for call in unread)
    assert any(len(call.ready) == MAX_UNREAD for call in unread)
    texts = [read(call)[-1].result.tokens for call in unread]
    assert texts == [
        alone(toy(), random_ids(n, 9), temperature=0.0, max_new_tokens=400).tokens for n in range(20)
    ]


def test_one_reader_is_enough_for_everybody_to_advance(toy):
    engine = toy()
    scheduler = EngineLoop(engine)
    mine = ask(scheduler, engine, random_ids(1, 9), temperature=0.0, max_new_tokens=20)
    other = ask(scheduler, engine, random_ids(2, 9), temperature=0.0, max_new_tokens=20)
    read(mine)
    runs = len(engine.runs)
    assert len(read(other)) == 20
    assert len(engine.runs) - runs <= 1


def test_a_failing_engine_leaves_no_thread_waiting(toy):
    """One run in ten fails; each caller gets his error or his whole text."""
    engine = toy()
    scheduler = EngineLoop(engine)
    chance = random.Random(5)
    failed, finished = [], []

    def fail(what, slots):
        if chance.random() < 0.1:
            raise SlmError("E_MEMORY", "acabou", hint="nenhuma")

    engine.fail = fail

    def client(number):
        for turn in range(5):
            options = {"max_new_tokens": 40, "seed": 10 * number + turn}
            try:
                result = read(ask(scheduler, engine, random_ids(number, 30), **options))[-1].result
            except SlmError as error:
                failed.append(error.code)
            else:
                assert result.tokens == alone(toy(), random_ids(number, 30), **options).tokens
                finished.append(number)

    with at_once(*(lambda n=n: client(n) for n in range(8))):
        pass
    assert set(failed) == {"E_MEMORY"}
    assert finished
    scheduler.forget()
    assert engine.slots == {}


def test_a_fault_of_the_loop_itself_reaches_all_and_hangs_none(toy, monkeypatch):
    engine = toy()
    scheduler = EngineLoop(engine)
    calls = [ask(scheduler, engine, random_ids(n, 9), max_new_tokens=9) for n in range(3)]
    monkeypatch.setattr(scheduler._batch, "_admit", lambda: 1 / 0)
    for call in calls:
        with pytest.raises(SlmError, match="ZeroDivisionError") as error:
            call.next_chunk()
        assert error.value.code == "E_INTERNAL"


def test_closing_the_model_ends_waiting_calls_with_its_error(toy):
    engine = toy()
    scheduler = EngineLoop(engine)
    started = threading.Event()

    def slow(what, slots):
        started.set()
        time.sleep(0.002)

    engine.fail = slow
    codes = []

    def client(number):
        with pytest.raises(SlmError) as error:
            read(ask(scheduler, engine, random_ids(number, 9), temperature=0.0, max_new_tokens=480))
        codes.append(error.value.code)

    with at_once(*(lambda n=n: client(n) for n in range(4))):
        started.wait(10)
        time.sleep(0.05)
        scheduler.close()
    assert codes == ["E_CLOSED"] * 4
    with pytest.raises(SlmError, match="fechado"):
        ask(scheduler, engine, random_ids(1, 9))


def test_cancel_from_another_thread_ends_a_reader_that_waits(toy):
    engine = toy()
    scheduler = EngineLoop(engine)
    cancel, running, cancelled = Cancel(), threading.Event(), threading.Event()
    results = []

    def fail(what, slots):
        if len(engine.runs) == 30:
            running.set()
            assert cancelled.wait(30)

    engine.fail = fail

    def client():
        call = ask(scheduler, engine, random_ids(1, 9), temperature=0.0, max_new_tokens=490, cancel=cancel)
        results.append(read(call)[-1].result)

    with at_once(client):
        assert running.wait(30)
        cancel.cancel()
        cancelled.set()
    assert (results[0].finish_reason, len(results[0].tokens)) == ("cancelled", 30)
    assert len(engine.runs) == 30


def test_a_call_closed_by_another_thread_lets_its_reader_go(toy):
    engine = toy()
    scheduler = EngineLoop(engine)
    engine.fail = lambda what, slots: time.sleep(0.001)
    call = ask(scheduler, engine, random_ids(1, 9), temperature=0.0, max_new_tokens=490)
    chunks = []

    with at_once(lambda: chunks.extend(read(call))):
        while len(engine.runs) < 20:
            time.sleep(0.001)
        call.close()
    assert len(chunks) < 490
    assert chunks[-1].finish_reason is None
    assert scheduler._batch.sequences == []


def test_a_stream_forgotten_in_mid_text_is_closed_by_the_garbage_collector(export_folder):
    with Model(export_folder) as model:
        stream = model.stream("O rio", max_new_tokens=300, temperature=0.0)
        next(stream)
        del stream
        gc.collect()
        assert model._loop._batch.sequences == []


def test_logits_take_their_turn_between_the_steps_of_others(export_folder):
    with Model(export_folder) as model:
        wanted = model.logits([5, 9, 7])
        texts, options = [], {"max_new_tokens": 120, "temperature": 0.0, "seed": 1}

        def client():
            texts.append(model.generate_detailed("O rio corre", **options))

        with at_once(client, client):
            for _ in range(5):
                np.testing.assert_array_equal(model.logits([5, 9, 7]), wanted)
        assert_same_but_for_near_ties(model, "O rio corre", *texts, **options)


def test_a_slow_step_is_run_by_one_and_awaited_by_the_others(toy):
    """Nobody starves: with one slow engine, all calls advance at the same pace."""
    engine = toy()
    engine.fail = lambda what, slots: time.sleep(0.001)
    scheduler = EngineLoop(engine)
    progress = [0] * 6
    spread = []

    calls = [ask(scheduler, engine, random_ids(n, 9), temperature=0.0, max_new_tokens=120) for n in range(6)]

    def client(number):
        while calls[number].next_chunk() is not None:
            progress[number] += 1
            if min(progress) > 10 and max(progress) < 100:
                spread.append(max(progress) - min(progress))

    with at_once(*(lambda n=n: client(n) for n in range(6))):
        pass
    assert progress == [120] * 6
    assert not spread or np.median(spread) <= 20


def test_many_short_texts_take_no_more_memory_than_a_batch_and_what_is_kept(export_folder):
    with Model(export_folder) as model:
        config = model.engine.config
        slot_bytes = 256 * 2 * config.num_layers * config.kv_size * 4
        sizes = []
        for number in range(40):
            model.generate(f"{number} rios correm para o mar", max_new_tokens=3, temperature=0.0)
            sizes.append(model.engine.kv_bytes)
        assert sizes[-1] == sizes[20] <= 32 * slot_bytes
        model.forget()
        assert model.generate_detailed("Era", max_new_tokens=3).reused_tokens == 0
