"""The sequences that one engine works on: who has a slot, and what each step runs. One thread at a time.

A step decodes a token for every sequence whose prompt is computed, then reads a piece of one prompt or
several (`pace.PrefillPace` says how much): a long prompt delays the others' tokens by no more than a decode
takes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ParamSpec

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.cache import CACHE_BYTES, SlotPool
from ptbr_slm.runtime.drafting.costs import StepCosts
from ptbr_slm.runtime.pace import GRAIN, PrefillPace
from ptbr_slm.runtime.protocol import Engine, Floats, busy_error
from ptbr_slm.runtime.results import GenerationChunk
from ptbr_slm.runtime.sequence import SequenceState

_WAITING_SWEEP_S = 0.05
"""Seconds between two looks at all who wait, for cancellations and time limits: 1 ms a look at 5,000."""

P = ParamSpec("P")


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLimits:
    """What one model's batch takes on."""

    slots: int = 16
    """Sequences decoded together; further ones wait in order, so that memory does not follow their number."""
    max_waiting: int | None = None
    """Sequences that may wait for a slot; one more is refused with E_BUSY, and with E_REQUEST_SIZE a request
    that would wait with more even where it is alone. None: any number."""
    max_waiting_tokens: int | None = None
    """Tokens of prompts that may wait, likewise, but for one prompt that waits alone. None: any number."""
    kv_bytes: int | None = None
    """Bytes of keys and values that texts may come to, all slots together: a sequence begins once its whole
    length, prompt and `max_new_tokens`, fits beside those that run. None: no limit but memory itself."""
    cache_bytes: int = CACHE_BYTES
    """Bytes of finished texts that stay for their prefixes."""


@dataclass(frozen=True, slots=True)
class BatchFigures:
    """What a batch does now, and has done since it was made. Read without a lock: up to a step apart."""

    running: int
    """Sequences with a slot."""
    waiting: int
    waiting_tokens: int
    """Tokens of prompts of those that wait."""
    slots: int
    """The most that may run."""
    kv_bytes: int
    """Bytes of key and value buffers now."""
    kv_tokens: int
    """Tokens that running sequences hold there."""
    kv_capacity: int
    """Tokens that all slots would hold at the model's context."""
    cached_slots: int
    """Slots of finished texts, kept for their prefixes."""
    steps: int
    decoded_tokens: int
    prompt_tokens: int
    """Tokens of prompts that were run; those from the cache are not among them."""
    reused_tokens: int
    drafted: int
    accepted: int


class Batch:
    """Sequences in, chunks out (`SequenceState.deliver`).

    `submit`, `figures` and `SequenceState.abandoned` may be used from any thread (`submit` by one at a time);
    everything else by one thread at a time.
    """

    def __init__(self, engine: Engine, limits: BatchLimits | None = None) -> None:
        self.limits = limits or BatchLimits()
        self._engine = engine
        self._pool = SlotPool(engine, self.limits.slots, self.limits.cache_bytes)
        self._arrivals: deque[tuple[SequenceState, ...]] = deque()
        self._waiting: deque[SequenceState] = deque()
        self._running: dict[SequenceState, None] = {}
        """Sequences with a slot, in the order in which they came."""
        self._pace = PrefillPace()
        self.costs = StepCosts()
        """Of the engine's steps for one text alone."""
        self._oldest_next = True
        """Whose turn the next piece is: the prompt that came first, or the one with least left."""
        self._sweep_waiting_at = 0.0
        # Each count has one writer, the submitter or the stepping thread: their difference needs no lock.
        self._came = self._came_tokens = self._left = self._left_tokens = 0
        self._steps = self._decoded = self._prompt_tokens = self._reused = 0
        self._drafted = self._accepted = 0

    def submit(self, sequences: Iterable[SequenceState]) -> None:
        """Hand in the sequences of one request; the next step sees them all.

        Raises E_BUSY, or E_REQUEST_SIZE where waiting would not help.
        """
        sequences = tuple(sequences)
        self._check_room(sequences)
        request = object()
        for sequence in sequences:
            sequence.request = request
        self._came += len(sequences)
        self._came_tokens += _tokens(sequences)
        self._arrivals.append(sequences)

    def _check_room(self, sequences: Sequence[SequenceState]) -> None:
        """Count those that would wait for a slot, with those that wait already."""
        slots, waiting = self.limits.slots, self.waiting
        if excess := self._excess(sequences[slots:], 0, 0):
            raise SlmError(
                "E_REQUEST_SIZE",
                f"este pedido é grande demais, mesmo sem outros: {excess}.",
                where=f"{len(sequences)} textos de uma vez",
                hint="Divida-o em pedidos menores.",
            )
        free = max(0, slots - len(self._running))
        late = sequences[max(0, free - waiting) :]
        if excess := self._excess(late, max(0, waiting - free), self._came_tokens - self._left_tokens):
            raise busy_error(excess)

    def _excess(self, late: Sequence[SequenceState], waiting: int, waiting_tokens: int) -> str:
        """The limit that would be passed if these waited too, in words; empty where they may."""
        many, tokens = waiting + len(late), waiting_tokens + _tokens(late)
        most, most_tokens = self.limits.max_waiting, self.limits.max_waiting_tokens
        if late and most is not None and many > most:
            return f"{many} textos esperariam a vez (o limite é {most})"
        if late and many > 1 and most_tokens is not None and tokens > most_tokens:
            return f"os textos que esperariam a vez têm {tokens} tokens (o limite é {most_tokens})"
        return ""

    @property
    def waiting(self) -> int:
        """Sequences without a slot."""
        return self._came - self._left

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._running or self._waiting or self._arrivals)

    @property
    def sequences(self) -> list[SequenceState]:
        """All sequences that are not over."""
        return [*self._running, *self._waiting, *(s for request in list(self._arrivals) for s in request)]

    def figures(self) -> BatchFigures:
        """See `BatchFigures`."""
        return BatchFigures(
            running=len(self._running),
            waiting=self.waiting,
            waiting_tokens=self._came_tokens - self._left_tokens,
            slots=self.limits.slots,
            kv_bytes=self._engine.kv_bytes,
            kv_tokens=sum(sequence.computed for sequence in list(self._running)),
            kv_capacity=self.limits.slots * self._engine.config.max_seq_len,
            cached_slots=self._pool.cached,
            steps=self._steps,
            decoded_tokens=self._decoded,
            prompt_tokens=self._prompt_tokens,
            reused_tokens=self._reused,
            drafted=self._drafted,
            accepted=self._accepted,
        )

    def decode(self) -> None:
        """Take in who has come, then one token for every sequence whose prompt is computed."""
        self.sweep()
        self._admit()
        self._steps += 1
        decoding = [sequence for sequence in self._running if sequence.decoding]
        if decoding:
            start = time.perf_counter()
            self._decode(decoding)
            self._pace.decoded(time.perf_counter() - start)

    def prefill(self) -> None:
        """The step's piece of prompts.

        The one that came first and the one with least left take turns: a short prompt does not wait for a
        long one before it, which still has half of the time.
        """
        reading = [sequence for sequence in self._running if not sequence.decoding]
        if reading:
            budget = self._pace.piece(decoding=self._others_decode(reading))
            start, pieces = time.perf_counter(), list[int]()
            while reading and budget >= GRAIN:
                sequence = reading[0] if self._oldest_next else min(reading, key=lambda s: s.left_to_read)
                self._oldest_next = not self._oldest_next
                reading.remove(sequence)
                piece = sequence.next_piece(budget)
                if piece:
                    budget -= max(len(piece), GRAIN)  # a run costs about as much as one of GRAIN tokens
                    pieces.append(len(piece))
                self._guarded(sequence, self._prefill_piece, sequence, piece)
            if pieces:
                self._pace.read(pieces, time.perf_counter() - start)
        self._pool.evict(self._running, idle=self.idle)

    def sweep(self) -> None:
        """Drop sequences that nobody reads, end those that are cancelled or out of time. Runs nothing."""
        while self._arrivals:
            self._waiting.extend(self._arrivals[0])
            self._arrivals.popleft()
        self._end_interrupted(list(self._running))
        now = time.perf_counter()
        if now >= self._sweep_waiting_at or len(self._waiting) <= self.limits.slots:
            self._sweep_waiting_at = now + _WAITING_SWEEP_S
            self._end_interrupted(self._waiting)
            self._waiting = deque(sequence for sequence in self._waiting if not sequence.over)

    def fail_all(self, error: Callable[[], Exception]) -> None:
        """End every sequence with an error of its own."""
        sequences = self.sequences
        self._arrivals.clear()
        self._waiting.clear()
        for sequence in sequences:
            with suppress(Exception):  # a slot that cannot be closed keeps no caller waiting
                self._fail(sequence, error())

    def forget(self) -> None:
        """Give back the slots that are cached for their prefixes."""
        self._pool.clear()

    def _end_interrupted(self, sequences: Iterable[SequenceState]) -> None:
        for sequence in sequences:
            if sequence.over:
                continue
            if sequence.abandoned:
                self._remove(sequence)
            elif (reason := sequence.interruption()) is not None:
                self._finish(sequence, sequence.end(reason))

    def _admit(self) -> None:
        """Give waiting sequences slots, in order, as long as there are slots and bytes."""
        while self._waiting:
            sequence = self._waiting[0]
            prompt = sequence.prompt
            if sequence.over:  # it failed with the completion that ran its prompt
                self._waiting.popleft()
                continue
            if prompt.leader is not None and prompt.logits is None:
                return  # another completion is running this prompt
            if len(self._running) >= self.limits.slots or not self._fits(sequence):
                return
            self._waiting.popleft()
            self._running[sequence] = None
            self._count_out(sequence)
            self._guarded(sequence, self._pool.assign, sequence, self._running)
            self._reused += sequence.reused

    def _fits(self, sequence: SequenceState) -> bool:
        """Whether a sequence fits in `kv_bytes` at its full length, once cached slots have made room."""
        limit = self.limits.kv_bytes
        return limit is None or not self._running or self._pool.make_room(sequence, self._running, limit)

    def _others_decode(self, reading: Sequence[SequenceState]) -> bool:
        """Whether texts of other requests than those of the prompts wait for their next token.

        Within one request prompts go first, so that what it runs, and with it the last bits, does not depend
        on measured times.
        """
        requests = {sequence.request for sequence in reading}
        return any(s.decoding and {s.request} != requests for s in self._running)

    def _prefill_piece(self, sequence: SequenceState, piece: Sequence[int]) -> None:
        if sequence.first_logits is not None:
            logits, sequence.first_logits = sequence.first_logits, None
        else:
            logits = self._run_piece(sequence, piece)
        if sequence.computed == len(sequence.ids):
            prompt = sequence.prompt
            if prompt.leader is sequence and prompt.pending and prompt.logits is None:
                prompt.logits = logits.copy()
            self._advance(sequence, logits)

    def _run_piece(self, sequence: SequenceState, piece: Sequence[int]) -> Floats:
        """(V,) logits after the piece."""
        start = sequence.computed
        if sequence.needs_prompt_logprobs:
            every = self._engine.extend(sequence.slot, piece)
            sequence.add_prompt_logprobs(start, every)
            logits: Floats = every[-1]
        else:
            logits = self._engine.prefill(sequence.slot, piece)
        sequence.computed += len(piece)
        self._prompt_tokens += len(piece)
        if sequence.exact == start:
            sequence.exact = sequence.computed
        return logits

    def _decode(self, sequences: Sequence[SequenceState]) -> None:
        """One token for each sequence; more for one that is alone and has a draft."""
        if len(sequences) == 1 and (draft := self._draft(sequences[0])):
            self._guarded(sequences[0], self._verify_draft, sequences[0], draft)
            return
        try:
            start = time.perf_counter()
            scores = self._scores(sequences)
            if len(sequences) == 1:
                self.costs.passed(1, time.perf_counter() - start)
        except Exception as error:
            if len(sequences) == 1:
                self._fail(sequences[0], error)
                return
            for sequence in sequences:  # one by one: only those that the error concerns have it again
                if self._restored(sequence):
                    self._decode([sequence])
                else:
                    self._fail(sequence, error)
            return
        self._decoded += len(sequences)
        for sequence, score in zip(sequences, scores, strict=True):
            sequence.computed += 1
            self._guarded(sequence, self._advance, sequence, score)

    def _scores(self, sequences: Sequence[SequenceState]) -> Sequence[Floats | int]:
        """For each sequence (V,) logits after its last token, or the next token where the engine chose it."""
        slots, tokens = [s.slot for s in sequences], [s.last_token for s in sequences]
        if self._engine.draws_tokens:
            return self._engine.decode_drawn(slots, tokens, [s.draw() for s in sequences])
        return list(self._engine.decode(slots, tokens, lent=True))

    def _draft(self, sequence: SequenceState) -> list[int]:
        """What a form forces or the text's own past suggests; else what a draft layer guesses."""
        if draft := sequence.draft(self.costs):
            return draft
        if not sequence.wants_guess(self.costs):
            return []
        start = time.perf_counter()
        expected = self._engine.draft(sequence.slot, sequence.last_token)
        if expected is None:  # another text's step came between
            return []
        token = sequence.guess(expected)
        self.costs.guessed(time.perf_counter() - start)
        return [token]

    def _verify_draft(self, sequence: SequenceState, draft: list[int]) -> None:
        """Run a draft in one go and accept the tokens that the sampler would have chosen anyway.

        The sampler chooses from each position's logits in turn and goes on only while its choice is the
        draft's: the same text and the same draws as without drafts.
        """
        start = time.perf_counter()
        tokens = [sequence.last_token, *draft]
        logits = self._engine.extend(sequence.slot, tokens, lent=True)  # (1 + len(draft), V)
        self.costs.passed(len(logits), time.perf_counter() - start)
        sequence.drafted += len(draft)
        self._drafted += len(draft)
        for right, scores in enumerate(logits):
            sequence.computed += 1
            sequence.accepted += right > 0
            chunk = sequence.advance(scores)
            sequence.deliver(chunk)
            if chunk.finish_reason or right == len(draft) or sequence.last_token != draft[right]:
                break
        sequence.learn(len(draft), right, self.costs)
        self._accepted += right
        self._decoded += right + 1
        self._engine.truncate(sequence.slot, sequence.computed)
        if chunk.finish_reason:
            self._remove(sequence)

    def _advance(self, sequence: SequenceState, scores: Floats | int) -> None:
        chunk = sequence.advance(scores)
        if chunk.finish_reason:
            self._finish(sequence, chunk)
        else:
            sequence.deliver(chunk)

    def _finish(self, sequence: SequenceState, chunk: GenerationChunk) -> None:
        sequence.deliver(chunk)
        self._remove(sequence)

    def _guarded(
        self, sequence: SequenceState, action: Callable[P, None], *args: P.args, **options: P.kwargs
    ) -> None:
        """What goes wrong with one sequence ends that sequence."""
        try:
            action(*args, **options)
        except Exception as error:
            self._fail(sequence, error)

    def _fail(self, sequence: SequenceState, error: Exception) -> None:
        deliver = sequence.deliver
        try:
            self._remove(sequence, cache=False)
        finally:
            deliver(error)

    def _remove(self, sequence: SequenceState, *, cache: bool = True) -> None:
        """The sequence is over: its slot is cached for what it holds, or given back.

        Where it waits, `sweep` takes it out of the queue.
        """
        if sequence.over:
            return
        sequence.release()
        if sequence not in self._running:
            self._count_out(sequence)
        else:
            del self._running[sequence]
        try:
            if sequence.slot >= 0:
                if cache:
                    self._pool.retain(sequence, self._running)
                else:
                    self._pool.close(sequence)
        finally:
            self._pool.disown(sequence)

    def _count_out(self, sequence: SequenceState) -> None:
        """It waits no longer."""
        self._left += 1
        self._left_tokens += len(sequence.prompt.ids)

    def _restored(self, sequence: SequenceState) -> bool:
        """Whether the slot holds again what the sequence has computed, after a step that broke off."""
        try:
            self._engine.truncate(sequence.slot, sequence.computed)
            return self._engine.length(sequence.slot) == sequence.computed
        except Exception:  # the engine no longer knows the slot: the sequence has nothing to go on with
            return False


def _tokens(sequences: Iterable[SequenceState]) -> int:
    return sum(len(sequence.prompt.ids) for sequence in sequences)


def internal_error(what: str) -> SlmError:
    """A fault that is not the caller's."""
    return SlmError("E_INTERNAL", what, hint="Tente de novo; se repetir, abra o modelo outra vez.")
