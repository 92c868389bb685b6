"""How prompts are read beside running texts: by the clock, and without changing a value."""

from __future__ import annotations

import pytest
from batch_readers import ask, run, step, submit
from prompts import random_ids

from ptbr_slm.runtime import sequence
from ptbr_slm.runtime.batch import Batch
from ptbr_slm.runtime.pace import GRAIN


def endless(engine):
    """Options of a text that no end token ends."""
    return {
        "temperature": 0.0,
        "max_new_tokens": 4000,
        "logit_bias": dict.fromkeys(engine.config.eos_token_ids, -100.0),
    }


class Clock:
    """Time passes with the engine's runs only: `token_s` for each token of a prompt, `decode_s` a decode."""

    def __init__(self, monkeypatch, engine, *, decode_s, token_s):
        self.now = 100.0
        self.costs = {"decode": lambda tokens: decode_s, "prefill": lambda tokens: tokens * token_s}
        monkeypatch.setattr(sequence.time, "perf_counter", lambda: self.now)
        self.engine = engine
        engine.fail = self.run

    def run(self, what, slots):
        kind, tokens = self.engine.runs[-1]
        self.now += self.costs[kind](tokens)


@pytest.mark.parametrize(("decode_s", "token_s"), [(0.016, 0.0008), (0.0035, 0.0008), (0.03, 0.0001)])
def test_a_long_prompt_at_most_doubles_the_time_between_others_tokens(toy, monkeypatch, decode_s, token_s):
    """From outside, before pieces followed the clock: 16 ms became a median of 854 ms."""
    engine = toy(context=4096)
    batch = Batch(engine)
    clock = Clock(monkeypatch, engine, decode_s=decode_s, token_s=token_s)
    [running] = ask(engine, random_ids(1, 20), **endless(engine))
    submit(batch, [running])
    for _ in range(10):
        step(batch)
    [long] = ask(engine, random_ids(2, 1792), temperature=0.0, max_new_tokens=4)
    submit(batch, [long])
    start, tokens, gaps = clock.now, len(running.chunks), []
    while not long.chunks:
        before = clock.now
        step(batch)
        gaps.append(clock.now - before)
    waited = clock.now - start
    assert waited / (len(running.chunks) - tokens) <= 2.1 * decode_s  # on average
    assert max(gaps) <= max(3.1 * decode_s, decode_s + GRAIN * token_s + 1e-9)  # and each at most trebled
    assert waited <= 2.3 * 1792 * token_s + 6 * decode_s  # the prompt has its half of the time


def test_a_short_prompt_does_not_wait_for_the_long_one_before_it(toy, monkeypatch):
    """From outside, before: two tokens waited 6.55 s behind 1,792."""
    engine = toy(context=4096)
    batch = Batch(engine)
    Clock(monkeypatch, engine, decode_s=0.016, token_s=0.0008)
    [running] = ask(engine, random_ids(1, 20), **endless(engine))
    [long] = ask(engine, random_ids(2, 1792), temperature=0.0, max_new_tokens=4)
    [short] = ask(engine, random_ids(3, 2), temperature=0.0, max_new_tokens=4)
    for reader in (running, long, short):
        submit(batch, [reader])
        step(batch)
    steps = 3
    while not short.chunks:
        step(batch)
        steps += 1
    assert steps <= 6
    assert not long.chunks
    read = long.sequence.computed
    for _ in range(20):
        step(batch)
    assert long.sequence.computed > read  # and the long one goes on


def test_short_prompts_cannot_starve_a_long_one(toy, monkeypatch):
    engine = toy(context=4096)
    batch = Batch(engine)
    Clock(monkeypatch, engine, decode_s=0.016, token_s=0.0008)
    [long] = ask(engine, random_ids(2, 600), temperature=0.0, max_new_tokens=4)
    submit(batch, [long])
    for number in range(400):
        submit(batch, ask(engine, random_ids(10 + number, 12), temperature=0.0, max_new_tokens=3))
        step(batch)
        if long.chunks:
            break
    assert long.chunks
    assert number <= 2 * 600 / GRAIN + 20  # half of the pieces are its own


def test_within_one_request_the_course_does_not_depend_on_the_clock(toy, monkeypatch):
    runs = []
    for decode_s in (0.001, 0.1):
        engine = toy(context=4096)
        Clock(monkeypatch, engine, decode_s=decode_s, token_s=0.001)
        prompts = [random_ids(i, 1 + 150 * i) for i in range(6)]
        run(Batch(engine), ask(engine, *prompts, temperature=0.0, max_new_tokens=20))
        runs.append(engine.runs)
    assert runs[0] == runs[1]


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 31, 32, 33, 48, 49, 255, 256, 257, 258, 300, 513])
@pytest.mark.parametrize("limit", [16, 32, 64, 128, 256])
def test_pieces_end_at_the_grain_and_leave_no_token_alone(toy, length, limit):
    [reader] = ask(toy(context=4096), random_ids(1, length))
    sizes = []
    while reader.sequence.left_to_read:
        piece = reader.sequence.next_piece(limit)
        reader.sequence.computed += len(piece)
        sizes.append(len(piece))
    assert sum(sizes) == length
    assert max(sizes) <= max(limit, 17) and max(sizes) <= 256
    assert 1 not in sizes or length == 1
    assert all(sum(sizes[:at]) % GRAIN == 0 for at in range(len(sizes)))
