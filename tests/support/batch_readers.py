"""Sequences handed to a `Batch` by hand, and what comes of them."""

from __future__ import annotations

from ptbr_slm.runtime.batch import Batch
from ptbr_slm.runtime.results import GenerationChunk
from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.runtime.sequence import PromptState, make_sequences


class Reader:
    """Collects what comes of one sequence."""

    def __init__(self, sequence):
        self.sequence = sequence
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

    @property
    def over(self):
        return self.error is not None or bool(self.chunks and self.chunks[-1].finish_reason)

    @property
    def tokens(self):
        return [chunk.token for chunk in self.chunks if chunk.token >= 0]

    @property
    def result(self):
        return self.chunks[-1].result


def ask(engine, *prompts, cancel=None, tenant="", **options):
    states = [PromptState(ids, tenant=tenant) for ids in prompts]
    sequences = make_sequences(engine, states, SamplingParams(**options), cancel)
    return [Reader(sequence) for sequence in sequences]


def submit(batch, readers):
    """As one request."""
    batch.submit([reader.sequence for reader in readers])


def step(batch):
    """What the engine's loop does again and again."""
    batch.decode()
    batch.prefill()


def run(batch, readers, steps=5000):
    """Hand in and step until all are over."""
    if readers:
        submit(batch, readers)
    for _ in range(steps):
        if not batch.sequences:
            return readers
        step(batch)
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
