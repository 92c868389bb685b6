"""The engine's thread under many callers: each text as it is alone, readers of every kind, faults, an end."""

from __future__ import annotations

import gc
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
from engine_calls import alone, ask, at_once, read
from near_ties import assert_same_but_for_near_ties
from prompts import random_ids

import ptbr_slm
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime import model as model_module
from ptbr_slm.runtime.engine_loop import EngineLoop
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.sequence import Cancel

pytestmark = pytest.mark.usefixtures("quick_switches")


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


def test_a_turn_in_a_loop_leaves_a_text_every_other_run(toy):
    """From outside, before: one thread that asks for logits left a text 42 tokens in 21 s, two none."""
    engine = toy()
    engine.fail = lambda what, slots: time.sleep(0.001)
    scheduler = EngineLoop(engine)
    stop = threading.Event()
    turns = []

    def greedy():
        while not stop.is_set():
            with scheduler.turn():
                turns.append(len(engine.runs))
                time.sleep(0.001)

    call = ask(scheduler, engine, random_ids(1, 9), temperature=0.0, max_new_tokens=100)
    call.next_chunk()
    with at_once(greedy, greedy, greedy):
        while not turns:
            time.sleep(0.001)
        read(call)
        stop.set()
    during = [runs for runs in turns if runs < 100]
    assert len(during) <= 100  # at most one turn between two steps
    assert len(set(during)) == len(during)


def test_cancel_and_the_time_limit_are_kept_beside_turns(toy):
    engine = toy()
    engine.fail = lambda what, slots: time.sleep(0.001)
    scheduler = EngineLoop(engine)
    stop = threading.Event()

    def greedy():
        while not stop.is_set():
            with scheduler.turn():
                time.sleep(0.002)

    with at_once(greedy, greedy):
        try:
            cancel = Cancel()
            call = ask(
                scheduler, engine, random_ids(1, 9), cancel=cancel, temperature=0.0, max_new_tokens=490
            )
            call.next_chunk()
            cancel.cancel()
            assert len(read(call)) <= 490
            late = ask(
                scheduler, engine, random_ids(2, 9), timeout_s=0.05, temperature=0.0, max_new_tokens=490
            )
            assert read(late)[-1].finish_reason in ("timeout", "eos")
        finally:
            stop.set()


def test_a_loop_that_nobody_refers_to_ends_its_thread_and_frees_the_engine(toy):
    engine = toy()
    scheduler = EngineLoop(engine)
    call = ask(scheduler, engine, random_ids(1, 9), temperature=0.0, max_new_tokens=5)
    del scheduler  # a call that is read keeps it
    assert len(read(call)) == 5
    thread, gone = call._loop.thread, weakref.ref(engine)
    del call, engine
    thread.join(30)
    assert not thread.is_alive()
    gc.collect()
    assert gone() is None


def test_another_model_is_loaded_once_the_former_is_freed(export_folder, tmp_path):
    other = shutil.copytree(export_folder, tmp_path / "outro")
    ptbr_slm.generate("O rio", model=export_folder, max_new_tokens=2)
    former = weakref.ref(model_module._last[1]._engine)
    thread = model_module._last[1]._loop.thread
    ptbr_slm.generate("O rio", model=other, max_new_tokens=2)
    assert not thread.is_alive()
    gc.collect()
    assert former() is None


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_ends_the_callers_text_and_the_process_ends_well(export_folder):
    """In the middle of a text: KeyboardInterrupt where it is read, nothing to repair, the next text works."""
    code = (
        "import ptbr_slm, sys\n"
        f"model = ptbr_slm.load({str(export_folder)!r})\n"
        "try:\n"
        "    while True:\n"
        "        for chunk in model.stream('O rio corre', max_new_tokens=500, temperature=0.0):\n"
        "            print('x', flush=True)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrompido', len(model.generate('Maria', max_new_tokens=3, seed=1)) > 0, flush=True)\n"
        "model.stream('fica aberto')\n"
        "model.submit('fica a meio', max_new_tokens=500)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        for _ in range(30):
            assert run.stdout.readline() == "x\n"
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=60)
    assert "interrompido True" in out
    assert (run.returncode, err) == (0, "")


def test_drained_it_refuses_and_lets_what_runs_end(toy):
    engine = toy()
    scheduler = EngineLoop(engine)
    gate = threading.Event()
    engine.fail = lambda what, slots: gate.wait(30)
    call = ask(scheduler, engine, random_ids(1, 9), temperature=0.0, max_new_tokens=20)
    assert not scheduler.drain(0.01)
    with pytest.raises(SlmError) as error:
        ask(scheduler, engine, random_ids(2, 9))
    assert error.value.code == "E_CLOSED"
    gate.set()
    assert scheduler.drain(30)
    assert len(read(call)) == 20


def test_seeds_do_not_depend_on_neighbours(toy):
    alone_text = alone(toy(), random_ids(1, 9), max_new_tokens=60, seed=5).tokens
    scheduler = EngineLoop(engine := toy())
    calls = [ask(scheduler, engine, random_ids(n, 9 + 40 * n), max_new_tokens=60, seed=n) for n in range(6)]
    mine = ask(scheduler, engine, random_ids(1, 9), max_new_tokens=60, seed=5)
    assert read(mine)[-1].result.tokens == alone_text
    for call in calls:
        read(call)


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
    monkeypatch.setattr(scheduler._stepper.batch, "_admit", lambda: 1 / 0)
    calls = [ask(scheduler, engine, random_ids(n, 9), max_new_tokens=9) for n in range(3)]
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
    assert scheduler.drain(30)


def test_a_stream_forgotten_in_mid_text_is_closed_by_the_garbage_collector(export_folder):
    with Model(export_folder) as model:
        stream = model.stream("O rio", max_new_tokens=300, temperature=0.0)
        next(stream)
        del stream
        gc.collect()
        assert model.drain(30)
        assert model.load_figures().decoded_tokens < 300


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
