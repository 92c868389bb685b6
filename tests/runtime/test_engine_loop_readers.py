"""Readers of every kind over the engine's thread: that sleep, that leave, that are coroutines."""

from __future__ import annotations

import asyncio
import threading

import pytest
from engine_calls import alone, ask, at_once, read
from prompts import random_ids

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.batch import BatchLimits
from ptbr_slm.runtime.engine_loop import EngineLoop
from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.runtime.sequence import PromptState, make_sequences

pytestmark = pytest.mark.usefixtures("quick_switches")


def test_forty_readers_that_sleep_block_nobody_and_read_their_prompts_once(toy):
    """From outside, before: 40 slow readers on 6 slots had their prompts read 10.3 times over."""
    engine = toy()
    scheduler = EngineLoop(engine, BatchLimits(slots=6))
    unread = [
        ask(scheduler, engine, random_ids(n, 30), temperature=0.0, max_new_tokens=80) for n in range(40)
    ]
    for n in range(6):
        result = read(ask(scheduler, engine, random_ids(50 + n, 9), max_new_tokens=50, seed=n))[-1].result
        assert len(result.tokens) == 50 or result.finish_reason == "eos"
    texts = [read(call)[-1].result.tokens for call in unread]
    assert sum(tokens for what, tokens in engine.runs if what == "prefill") == 40 * 30 + 6 * 9
    assert texts == [
        alone(toy(), random_ids(n, 30), temperature=0.0, max_new_tokens=80).tokens for n in range(40)
    ]


def test_a_text_runs_to_its_end_without_being_read(toy):
    engine = toy()
    scheduler = EngineLoop(engine)
    call = ask(scheduler, engine, random_ids(1, 9), temperature=0.0, max_new_tokens=20)
    assert scheduler.drain(30)
    runs = len(engine.runs)
    assert (
        read(call)[-1].result.tokens
        == alone(toy(), random_ids(1, 9), temperature=0.0, max_new_tokens=20).tokens
    )
    assert len(engine.runs) == runs


def test_coroutines_get_the_texts_they_get_alone_beside_threads(toy):
    """One event loop with twenty readers, some of which leave, and threads on the same engine."""
    engine = toy()
    scheduler = EngineLoop(engine)
    options = {"temperature": 0.0, "max_new_tokens": 40}
    threads = {}

    async def reader(number):
        call = ask(scheduler, engine, random_ids(number, 20), **options)
        with call:
            chunks = []
            async for chunk in call:
                chunks.append(chunk)
                if number % 5 == 0 and len(chunks) == 3:
                    return None
            return chunks[-1].result.tokens

    async def main():
        return await asyncio.gather(*(reader(number) for number in range(20)))

    def thread(number):
        threads[number] = read(ask(scheduler, engine, random_ids(number, 20), **options))[-1].result.tokens

    with at_once(*(lambda n=n: thread(n) for n in range(100, 104))):
        found = asyncio.run(asyncio.wait_for(main(), 60))
    for number, tokens in [*enumerate(found), *threads.items()]:
        wanted = alone(toy(), random_ids(number, 20), **options).tokens
        assert tokens == (None if number % 5 == 0 and number < 100 else wanted)
    scheduler.forget()
    assert engine.slots == {}


def test_a_coroutine_that_is_cancelled_while_it_waits_frees_its_slot(toy):
    engine = toy()
    scheduler = EngineLoop(engine, BatchLimits(cache_bytes=0))
    gate = threading.Event()
    engine.fail = lambda what, slots: gate.wait(30)

    async def main():
        call = ask(scheduler, engine, random_ids(1, 9), temperature=0.0, max_new_tokens=400)

        async def consume():
            with call:
                async for _ in call:
                    pass

        task = asyncio.create_task(consume())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(main(), 60))
    gate.set()
    assert scheduler.drain(30)
    assert engine.slots == {}
    assert len(engine.runs) <= 2


def test_an_error_reaches_a_coroutine_after_the_chunks_before_it(toy):
    engine = toy()
    scheduler = EngineLoop(engine)

    def fail(what, slots):
        if len(engine.runs) == 6:
            raise SlmError("E_MEMORY", "acabou", hint="nenhuma")

    engine.fail = fail

    async def main():
        chunks = []
        with pytest.raises(SlmError) as error:
            async for chunk in ask(scheduler, engine, random_ids(1, 9), temperature=0.0, max_new_tokens=40):
                chunks.append(chunk)
        return chunks, error.value.code

    chunks, code = asyncio.run(asyncio.wait_for(main(), 60))
    assert (len(chunks), code) == (5, "E_MEMORY")


def test_an_event_loop_that_is_gone_leaves_the_thread_alive(toy):
    engine = toy()
    scheduler = EngineLoop(engine)
    gate = threading.Event()
    engine.fail = lambda what, slots: gate.wait(30)
    calls = []

    async def begin():
        call = ask(scheduler, engine, random_ids(1, 9), temperature=0.0, max_new_tokens=400)
        calls.append(call)
        calls.append(asyncio.ensure_future(call.__anext__()))
        await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    calls[1].cancel()
    loop.close()
    gate.set()
    assert read(ask(scheduler, engine, random_ids(2, 9), temperature=0.0, max_new_tokens=5))


def test_a_coroutine_that_wants_to_be_woken_seldom_finds_the_whole_text_in_few_looks(toy):
    """The clock never reaches the interval: only the first chunk and the last wake the reader."""
    engine = toy()
    scheduler = EngineLoop(engine)
    options = {"temperature": 0.0, "max_new_tokens": 40}
    sequences = make_sequences(engine, [PromptState(random_ids(1, 9))], SamplingParams(**options), None)

    async def main():
        looks = []
        with scheduler.submit(sequences, wake_interval_s=60) as call:
            async for chunk in call:
                looks.append([chunk])
                while call.ready:
                    looks[-1].append(await anext(call))
                await asyncio.sleep(0)
        return looks

    looks = asyncio.run(asyncio.wait_for(main(), 60))
    chunks = [chunk for look in looks for chunk in look]
    wanted = alone(toy(), random_ids(1, 9), **options).tokens
    assert [chunk.token for chunk in chunks] == list(wanted)
    assert len(looks) <= 3


def test_an_error_wakes_a_coroutine_at_once(toy):
    engine = toy()
    scheduler = EngineLoop(engine)

    def fail(what, slots):
        if len(engine.runs) == 6:
            raise SlmError("E_MEMORY", "acabou", hint="nenhuma")

    engine.fail = fail
    sequences = make_sequences(
        engine, [PromptState(random_ids(1, 9))], SamplingParams(max_new_tokens=40), None
    )

    async def main():
        with scheduler.submit(sequences, wake_interval_s=60) as call:
            return [chunk async for chunk in call]

    with pytest.raises(SlmError, match="acabou"):
        asyncio.run(asyncio.wait_for(main(), 10))
