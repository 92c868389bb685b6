"""The one decode loop: prompts in, chunks out, over any engine.

Rows are prefilled one by one, then decoded together; a finished row leaves the batch and its slot goes to
the next prompt. The engine's lock is held per step, never while a caller looks at a chunk: two streams over
one model interleave, and a stream that is not read to its end blocks nobody.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from threading import Lock

from ptbr_slm.runtime.generation.text import TextStream
from ptbr_slm.runtime.sampling.sampler import Sampler
from ptbr_slm.runtime.slots import PREFILL_CHUNK
from ptbr_slm.runtime.types import (
    Engine,
    FinishReason,
    Floats,
    GenerationChunk,
    GenerationResult,
    SamplingParams,
)

MAX_BATCH = 16
"""Rows decoded together; further prompts wait for a slot, so that memory does not follow their number."""


class _Row:
    """One text in the making."""

    def __init__(
        self, engine: Engine, index: int, prompt: Sequence[int], params: SamplingParams, seed: int
    ) -> None:
        self.index = index
        self.prompt = prompt
        self.slot = -1
        self.token = -1
        self._seed = seed
        self._vocab_size = engine.tokenizer.vocab_size
        self._sampler = Sampler(params, seed, prompt, self._vocab_size)
        self._stream = TextStream(engine.tokenizer, params.stop)
        self._ends = frozenset(engine.config.eos_token_ids)
        self._length = params.max_new_tokens
        self._room = engine.config.max_seq_len - len(prompt)
        self._tokens: list[int] = []
        self._text: list[str] = []
        self._start = time.perf_counter()
        self._first = 0.0

    def advance(self, logits: Floats) -> GenerationChunk:
        """Choose a token from logits (V,), which are overwritten; the last chunk carries the result."""
        token = self.token = self._sampler.choose(logits[: self._vocab_size])
        self._tokens.append(token)
        if not self._first:
            self._first = time.perf_counter()
        if token in self._ends:
            return self._last("", "eos")
        text = self._stream.push(token)
        if self._stream.stopped:
            return self._last(text, "stop")
        if len(self._tokens) >= self._length:
            return self._last(text, "length")
        if len(self._tokens) >= self._room:
            return self._last(text, "context")
        self._text.append(text)
        return GenerationChunk(text, token, self.index)

    def _last(self, text: str, reason: FinishReason) -> GenerationChunk:
        if reason != "stop":
            text += self._stream.finish()
            if self._stream.stopped:  # a character completed by the end completed a stop string
                reason = "stop"
        decode_s = time.perf_counter() - self._first
        result = GenerationResult(
            text="".join(self._text) + text,
            tokens=tuple(self._tokens),
            prompt_tokens=len(self.prompt),
            finish_reason=reason,
            seed=self._seed,
            time_to_first_token_s=self._first - self._start,
            tokens_per_second=(len(self._tokens) - 1) / decode_s if len(self._tokens) > 1 else 0.0,
        )
        return GenerationChunk(text, self.token, self.index, reason, result)


def run(
    engine: Engine,
    lock: Lock,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    seeds: Sequence[int],
) -> Iterator[GenerationChunk]:
    """Continue every prompt (token ids, shorter than the context); chunks of all rows as they come.

    seeds: one a row; a row's text does not depend on the others in the batch. Closing the generator frees
    its slots.
    """
    waiting = deque(
        _Row(engine, index, prompt, params, seed)
        for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
    )
    active: list[_Row] = []
    taken: set[int] = set()
    try:
        while waiting or active:
            while waiting and len(active) < MAX_BATCH:
                row = waiting.popleft()
                chunk = row.advance(_prefill(engine, lock, row, taken))
                if chunk.finish_reason is None:
                    active.append(row)
                else:
                    _free(engine, row.slot, taken)
                yield chunk
            if active:
                yield from _step(engine, lock, active, taken)
    finally:
        for slot in taken:
            engine.close_slot(slot)


def _prefill(engine: Engine, lock: Lock, row: _Row, taken: set[int]) -> Floats:
    """Open a slot and run the prompt chunk by chunk, letting other streams step in between."""
    with lock:
        row.slot = engine.open_slot()
        taken.add(row.slot)
    for start in range(0, len(row.prompt), PREFILL_CHUNK):
        with lock:
            logits = engine.prefill(row.slot, row.prompt[start : start + PREFILL_CHUNK])
    return logits


def _step(engine: Engine, lock: Lock, active: list[_Row], taken: set[int]) -> Iterator[GenerationChunk]:
    """One token for every active row; finished rows leave `active`."""
    with lock:
        logits = engine.decode([row.slot for row in active], [row.token for row in active])
    chunks = [row.advance(scores) for row, scores in zip(active, logits, strict=True)]
    for row, chunk in zip(tuple(active), chunks, strict=True):
        if chunk.finish_reason is not None:
            active.remove(row)
            _free(engine, row.slot, taken)
    yield from chunks


def _free(engine: Engine, slot: int, taken: set[int]) -> None:
    taken.discard(slot)
    engine.close_slot(slot)
