"""The batch, step by step, over a toy engine: order, fairness, pauses, faults, and slots that come back."""

from __future__ import annotations

import random
import sys

import pytest
from prompts import random_ids

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime import batch as batch_module
from ptbr_slm.runtime import cache, sequence
from ptbr_slm.runtime.batch import Batch
from ptbr_slm.runtime.drafting import lookup
from ptbr_slm.runtime.results import GenerationChunk
from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.runtime.sequence import MAX_UNREAD, Cancel, PromptState, make_sequences

TRACED = {module.__file__ for module in (batch_module, cache, sequence, lookup)}
"""Files in which a Ctrl-C is raised at any line."""


class Reader:
    """Collects what comes of one sequence, and counts as having read it unless told not to."""

    def __init__(self, sequence, *, reads=True):
        self.sequence = sequence
        self.reads = reads
        self.chunks: list[GenerationChunk] = []
        self.error: Exception | None = None
        sequence.deliver = self.take

    def take(self, what):
        assert self.error is None
        assert not self.chunks or self.chunks[-1].finish_reason is None  # nothing comes after the last
        if isinstance(what, Exception):
            self.error = what
            return
        self.chunks.append(what)
        self.sequence.consumed += self.reads

    @property
    def over(self):
        return self.error is not None or bool(self.chunks and self.chunks[-1].finish_reason)

    @property
    def tokens(self):
        return [chunk.token for chunk in self.chunks if chunk.token >= 0]

    @property
    def result(self):
        return self.chunks[-1].result


def ask(engine, *prompts, cancel=None, reads=True, **options):
    states = [PromptState(ids) for ids in prompts]
    sequences = make_sequences(engine, states, SamplingParams(**options), cancel)
    return [Reader(sequence, reads=reads) for sequence in sequences]


def run(batch, readers, steps=5000):
    """Hand in and step until all are over."""
    for reader in readers:
        batch.submit(reader.sequence)
    for _ in range(steps):
        if not batch.sequences:
            return readers
        batch.step()
    raise AssertionError("still not over")


def plainly(engine, prompt, tokens):
    """Greedy tokens by the book: the whole text through the engine each time."""
    ids, ends = list(prompt), engine.config.eos_token_ids
    for _ in range(tokens):
        slot = engine.open_slot()
        ids.append(int(engine.prefill(slot, ids).argmax()))
        engine.close_slot(slot)
        if ids[-1] in ends:
            break
    return ids[len(prompt) :]


def alone(engine, prompt, **options):
    [reader] = run(Batch(engine), ask(engine, prompt, **options))
    return reader.result


def test_a_greedy_text_is_what_the_engine_says_token_for_token(toy):
    engine = toy()
    prompt = random_ids(1, 40)
    [reader] = run(Batch(engine), ask(engine, prompt, temperature=0.0, max_new_tokens=30))
    assert reader.tokens == plainly(toy(), prompt, 30)
    assert reader.result.tokens == tuple(reader.tokens)


@pytest.mark.parametrize("seed", range(8))
def test_any_course_of_requests_gives_each_the_text_it_has_alone(toy, seed):
    """Random prompts with shared beginnings, lengths, limits, readers, drafts; cancels and drops between."""
    chance = random.Random(seed)
    precision = chance.choice(["fp32", "int8"])
    memory = chance.choice([None, 1])
    engine = toy(precision, memory)
    batch = Batch(engine, limit=chance.randint(1, 4), cache_bytes=chance.choice([0, 10**6, 10**9]))
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
        readers = ask(engine, prompt, cancel=cancel, reads=chance.random() < 0.7, **options)
        asked.append((prompt, options, cancel, readers))
        pending += [reader.sequence for reader in readers]
    for _ in range(6000):
        if pending and chance.random() < 0.3:
            batch.submit(pending.pop(0))
        if chance.random() < 0.02:
            for _, _, cancel, _ in chance.sample(asked, 2):
                if cancel is not None:
                    cancel.cancel()
        for _, _, _, readers in asked:
            for reader in readers:
                if not reader.reads and chance.random() < 0.02:
                    reader.sequence.consumed = len(reader.chunks)
        batch.step()
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


def test_a_long_prompt_delays_a_running_text_by_one_chunk_a_token(toy):
    engine = toy(context=4096)
    batch = Batch(engine)
    [first] = ask(engine, random_ids(1, 20), temperature=0.0, max_new_tokens=60)
    batch.submit(first.sequence)
    batch.step()
    [long] = ask(engine, random_ids(2, 2000), temperature=0.0, max_new_tokens=4)
    batch.submit(long.sequence)
    before = len(first.chunks)
    for steps in range(1, 17):  # 8 chunks of the prompt, a token of the other text after each
        batch.step()
        assert len(first.chunks) - before >= steps // 2
    assert len(long.chunks) >= 1
    assert max(tokens for what, tokens in engine.runs if what == "prefill") <= 256


def test_short_prompts_are_prefilled_together_before_the_next_token(toy):
    engine = toy()
    batch = Batch(engine)
    readers = ask(engine, *(random_ids(i, 30) for i in range(8)), temperature=0.0, max_new_tokens=3)
    for reader in readers:
        batch.submit(reader.sequence)
    batch.step()
    assert [len(reader.chunks) for reader in readers] == [1] * 8


def test_requests_beyond_the_limit_begin_in_order(toy):
    engine = toy()
    batch = Batch(engine, limit=3)
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


def test_a_sequence_whose_reader_sleeps_pauses_and_goes_on_where_it_was(toy):
    engine = toy()
    batch = Batch(engine)
    [sleeper] = ask(engine, random_ids(1, 10), temperature=0.9, seed=3, max_new_tokens=200, reads=False)
    batch.submit(sleeper.sequence)
    for _ in range(150):
        batch.step()
    assert len(sleeper.chunks) == MAX_UNREAD
    runs = len(engine.runs)
    sleeper.sequence.consumed = MAX_UNREAD // 2
    batch.step()
    assert len(sleeper.chunks) == MAX_UNREAD + 1
    assert len(engine.runs) == runs + 1
    sleeper.reads = True
    sleeper.sequence.consumed = len(sleeper.chunks)
    run(batch, [])
    assert sleeper.result == pytest.approx(sleeper.result)
    assert sleeper.tokens == list(
        alone(toy(), random_ids(1, 10), temperature=0.9, seed=3, max_new_tokens=200).tokens
    )


@pytest.mark.parametrize("cache_bytes", [0, 10**9])
def test_sleeping_readers_give_their_slots_to_those_who_wait(toy, cache_bytes):
    engine = toy()
    batch = Batch(engine, limit=2, cache_bytes=cache_bytes)
    options = {"temperature": 0.9, "seed": 3, "max_new_tokens": 150}
    sleepers = ask(engine, random_ids(1, 10), random_ids(2, 300), reads=False, **options)
    for reader in sleepers:
        batch.submit(reader.sequence)
    for _ in range(MAX_UNREAD + 10):
        batch.step()
    others = ask(engine, random_ids(3, 10), random_ids(4, 10), random_ids(5, 10), max_new_tokens=70, seed=1)
    for reader in others:
        batch.submit(reader.sequence)
    for _ in range(300):
        batch.step()
    assert all(reader.over for reader in others)
    assert not any(reader.over for reader in sleepers)
    for reader in sleepers:
        reader.reads = True
        reader.sequence.consumed = len(reader.chunks)
    run(batch, [])
    for reader, prompt in zip(sleepers, (random_ids(1, 10), random_ids(2, 300)), strict=True):
        assert reader.tokens == list(alone(toy(), prompt, **options).tokens)


@pytest.mark.parametrize("seed", range(10))
def test_an_error_of_the_engine_ends_the_sequences_it_concerns_and_no_other(toy, seed):
    """A run that fails for one slot, at a random moment, while others share the batch."""
    chance = random.Random(seed)
    engine = toy()
    batch = Batch(engine, limit=4)
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
    batch = Batch(engine, limit=2)
    readers = ask(engine, *(random_ids(i, 9) for i in range(5)), temperature=0.0, max_new_tokens=40)
    for reader in readers:
        batch.submit(reader.sequence)
    for _ in range(4):
        batch.step()
    engine.close()
    run(batch, [])
    assert {reader.error.code for reader in readers if isinstance(reader.error, SlmError)} == {"E_CLOSED"}
    assert all(reader.over for reader in readers)


@pytest.mark.parametrize("moment", range(1, 40, 3))
def test_ctrl_c_in_the_middle_of_a_step_spoils_no_other_text(toy, moment):
    engine = toy()
    batch = Batch(engine)
    prompts = [random_ids(i, 50 + i) for i in range(3)]
    readers = ask(engine, *prompts, temperature=0.9, seed=2, max_new_tokens=20)
    for reader in readers:
        batch.submit(reader.sequence)
    left = [moment]

    def fail(what, slots):
        left[0] -= 1
        if not left[0]:
            engine.slots[slots[0]].append(7)
            raise KeyboardInterrupt

    engine.fail = fail
    for _ in range(200):
        try:
            batch.step()
        except KeyboardInterrupt:
            batch.recover()
    for reader, prompt in zip(readers, prompts, strict=True):
        wanted = alone(toy(), prompt, temperature=0.9, seed=2, max_new_tokens=20)
        assert reader.tokens == list(wanted.tokens)


@pytest.mark.parametrize("seed", range(6))
def test_ctrl_c_at_any_line_leaves_each_text_whole_or_ended_by_an_error(toy, seed):
    """Raised where the interpreter happens to be: between two lines of the batch or a sequence."""
    engine = toy()
    batch = Batch(engine, limit=2)
    prompts = [random_ids(i, 40) for i in range(4)]
    readers = ask(engine, *prompts, temperature=0.9, seed=2, max_new_tokens=15)
    for reader in readers:
        batch.submit(reader.sequence)
    chance = random.Random(seed)

    def interrupt(frame, event, arg):
        if frame.f_code.co_filename not in TRACED:
            return None
        if event == "line" and chance.random() < 0.004:
            raise KeyboardInterrupt
        return interrupt

    interrupted = 0
    for _ in range(400):
        try:
            sys.settrace(interrupt if interrupted < 4 else None)
            batch.step()
        except KeyboardInterrupt:
            sys.settrace(None)
            interrupted += 1
            batch.recover()
        finally:
            sys.settrace(None)
    assert interrupted
    assert not batch.sequences
    for reader, prompt in zip(readers, prompts, strict=True):
        if reader.error is None:
            wanted = alone(toy(), prompt, temperature=0.9, seed=2, max_new_tokens=15)
            assert reader.tokens == list(wanted.tokens)
        else:
            assert reader.error.code == "E_INTERNAL"


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
    batch.submit(reader.sequence)
    for _ in range(12):
        batch.step()
    assert len(reader.chunks) == 12
    cancel.cancel()
    batch.step()
    assert reader.chunks[-1].finish_reason == "cancelled"
    assert reader.result.tokens == tuple(reader.tokens) == tuple(plainly(toy(), random_ids(1, 9), 12))
    assert reader.result.text == "".join(chunk.text for chunk in reader.chunks)


def test_out_of_time_a_text_ends_where_it_is(toy, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(sequence.time, "perf_counter", lambda: now[0])
    engine = toy()
    batch = Batch(engine)
    [reader] = ask(engine, random_ids(1, 9), temperature=0.0, timeout_s=2.0)
    batch.submit(reader.sequence)
    for _ in range(5):
        now[0] += 0.3
        batch.step()
    now[0] += 1.0
    batch.step()
    assert reader.result.finish_reason == "timeout"
    assert len(reader.result.tokens) == 5


def test_the_sequence_of_an_abandoned_call_frees_its_slot_at_the_next_step(toy):
    engine = toy()
    batch = Batch(engine, cache_bytes=0)
    [reader] = ask(engine, random_ids(1, 9), temperature=0.0)
    batch.submit(reader.sequence)
    batch.step()
    reader.sequence.abandoned = True
    batch.step()
    assert engine.slots == {}
    assert not batch.sequences
