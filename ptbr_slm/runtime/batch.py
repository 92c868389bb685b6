"""The sequences that one engine works on: who has a slot, and what each step runs. One thread at a time.

A step is one of two: a token for every sequence whose prompt is computed, or up to `PREFILL_CHUNK` tokens
of prompts. While both are wanted they take turns, so a long prompt delays the others' tokens by one chunk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import ParamSpec

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.cache import CACHE_BYTES, SlotPool
from ptbr_slm.runtime.protocol import PREFILL_CHUNK, Engine, Floats
from ptbr_slm.runtime.results import GenerationChunk
from ptbr_slm.runtime.sequence import SequenceState

MAX_BATCH = 16
"""Sequences decoded together; further ones wait in order, so that memory does not follow their number."""

P = ParamSpec("P")


class Batch:
    """Sequences in, chunks out (`SequenceState.deliver`). What it does follows from the order of calls alone.

    `submit` and `SequenceState.abandoned` may be used from any thread; everything else by one thread at a
    time.
    """

    def __init__(self, engine: Engine, *, limit: int | None = None, cache_bytes: int = CACHE_BYTES) -> None:
        self._engine = engine
        self._limit = MAX_BATCH if limit is None else limit
        self._pool = SlotPool(engine, self._limit, cache_bytes)
        self._arrivals: deque[SequenceState] = deque()
        self._waiting: deque[SequenceState] = deque()
        self._running: list[SequenceState] = []
        """Sequences with a slot."""
        self._preempted: list[SequenceState] = []
        """Sequences that gave their slot away while they are paused."""
        self._prefill_next = True

    def submit(self, sequence: SequenceState) -> None:
        """Hand in a sequence; the next step sees it."""
        self._arrivals.append(sequence)

    @property
    def sequences(self) -> list[SequenceState]:
        """All sequences that are not over."""
        return [*self._running, *self._preempted, *self._waiting, *self._arrivals]

    def step(self) -> None:
        """One run of the engine, or none where there is nothing to do. An error ends what it concerns."""
        self.sweep()
        self._admit()
        prefilling = [sequence for sequence in self._running if not sequence.decoding]
        decoding = [s for s in self._running if s.decoding and not s.should_pause()]
        prefill = bool(prefilling) and (self._prefill_next or not decoding)
        self._prefill_next = not prefill
        if prefill:
            self._prefill(prefilling)
        elif decoding:
            self._decode(decoding)
        self._pool.evict(self._running, idle=not self.sequences)

    def sweep(self) -> None:
        """Drop sequences that nobody reads, end those that are cancelled or out of time. Runs nothing."""
        while self._arrivals:
            self._waiting.append(self._arrivals[0])
            self._arrivals.popleft()
        for sequence in self.sequences:
            if sequence.abandoned:
                self._remove(sequence)
            elif (reason := sequence.interruption()) is not None:
                self._finish(sequence, sequence.end(reason))
        for sequence in [sequence for sequence in self._preempted if not sequence.should_pause()]:
            self._waiting.appendleft(sequence)
            self._preempted.remove(sequence)

    def fail_all(self, error: Callable[[], Exception]) -> None:
        """End every sequence with an error of its own."""
        for sequence in self.sequences:
            with suppress(Exception):  # a slot that cannot be closed keeps no caller waiting
                self._fail(sequence, error())

    def recover(self) -> None:
        """After Ctrl-C in the middle of a step: the sequences it left half-done end, the others go on."""
        for sequence in dict.fromkeys(self.sequences):
            unfinished = sequence.first_logits is None and sequence.computed >= len(sequence.ids)
            if sequence.reason is not None:  # its last chunk is out
                self._remove(sequence)
            elif (
                sequence.emitted != sequence.generated
                or unfinished
                or not (sequence.slot < 0 or self._restored(sequence))
            ):
                self._fail(sequence, internal_error("a geração foi interrompida no meio de um passo."))
            else:
                self._requeue(sequence)

    def forget(self) -> None:
        """Give back the slots that are cached for their prefixes."""
        self._pool.clear()

    def _requeue(self, sequence: SequenceState) -> None:
        """Put a sequence that was on its way from one list to the next into one of them."""
        for sequences in (self._running, self._preempted, self._waiting, self._arrivals):
            while sequence in sequences:
                sequences.remove(sequence)
        if sequence.slot >= 0:
            self._running.append(sequence)
        else:
            self._waiting.appendleft(sequence)

    def _admit(self) -> None:
        """Give waiting sequences slots, in order; where none is left, that of a paused sequence."""
        while self._waiting:
            sequence = self._waiting[0]
            prompt = sequence.prompt
            if prompt.leader is not None and prompt.logits is None and not sequence.started:
                return  # another completion is running this prompt
            if len(self._running) >= self._limit and not self._preempt():
                return
            self._running.append(sequence)  # never in no list, not even at a Ctrl-C
            self._waiting.popleft()
            self._guarded(sequence, self._pool.assign, sequence, self._running)

    def _preempt(self) -> bool:
        """Take the slot of a paused sequence; False where none is paused."""
        paused = next((s for s in self._running if s.decoding and s.should_pause()), None)
        if paused is None:
            return False
        self._preempted.append(paused)
        self._running.remove(paused)
        self._pool.retain(paused, self._running, owner=paused)
        return True

    def _prefill(self, sequences: Sequence[SequenceState]) -> None:
        """Chunks of prompts, in order, `PREFILL_CHUNK` tokens in all."""
        budget = PREFILL_CHUNK
        for sequence in sequences:
            chunk = sequence.prefill_chunk()
            if len(chunk) > budget:
                return
            budget -= len(chunk)
            self._guarded(sequence, self._prefill_chunk, sequence, chunk)

    def _prefill_chunk(self, sequence: SequenceState, chunk: Sequence[int]) -> None:
        if sequence.first_logits is not None:
            logits, sequence.first_logits = sequence.first_logits, None
        else:
            logits = self._run_chunk(sequence, chunk)
        if sequence.computed == len(sequence.ids):
            prompt = sequence.prompt
            if prompt.leader is sequence and prompt.pending and prompt.logits is None:
                prompt.logits = logits.copy()
            self._advance(sequence, logits)

    def _run_chunk(self, sequence: SequenceState, chunk: Sequence[int]) -> Floats:
        """(V,) logits after the chunk."""
        start = sequence.computed
        if sequence.needs_prompt_logprobs:
            every = self._engine.extend(sequence.slot, chunk)
            sequence.add_prompt_logprobs(start, every)
            logits: Floats = every[-1]
        else:
            logits = self._engine.prefill(sequence.slot, chunk)
        sequence.computed += len(chunk)
        if sequence.exact == start:
            sequence.exact = sequence.computed
        return logits

    def _decode(self, sequences: Sequence[SequenceState]) -> None:
        """One token for each sequence; more for one that is alone and has a draft."""
        if len(sequences) == 1 and (draft := sequences[0].draft()):
            self._guarded(sequences[0], self._verify_draft, sequences[0], draft)
            return
        try:
            scores = self._scores(sequences)
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
        for sequence, score in zip(sequences, scores, strict=True):
            sequence.computed += 1
            self._guarded(sequence, self._advance, sequence, score)

    def _scores(self, sequences: Sequence[SequenceState]) -> Sequence[Floats | int]:
        """For each sequence (V,) logits after its last token, or the next token where the engine chose it."""
        slots, tokens = [s.slot for s in sequences], [s.last_token for s in sequences]
        if self._engine.draws_tokens:
            return self._engine.decode_drawn(slots, tokens, [s.draw() for s in sequences])
        return list(self._engine.decode(slots, tokens))

    def _verify_draft(self, sequence: SequenceState, draft: list[int]) -> None:
        """Run a draft in one go and accept the tokens that the sampler would have chosen anyway.

        The sampler chooses from each position's logits in turn and goes on only while its choice is the
        draft's: the same text and the same draws as without drafts.
        """
        logits = self._engine.extend(sequence.slot, [sequence.last_token, *draft])  # (1 + len(draft), V)
        sequence.drafted += len(draft)
        for right, scores in enumerate(logits):
            sequence.computed += 1
            sequence.accepted += right > 0
            chunk = sequence.advance(scores)
            self._emit(sequence, chunk)
            if chunk.finish_reason or right == len(draft) or sequence.last_token != draft[right]:
                break
        sequence.learn(len(draft), right)
        self._engine.truncate(sequence.slot, sequence.computed)
        if chunk.finish_reason:
            self._remove(sequence)

    def _advance(self, sequence: SequenceState, scores: Floats | int) -> None:
        chunk = sequence.advance(scores)
        if chunk.finish_reason:
            self._finish(sequence, chunk)
        else:
            self._emit(sequence, chunk)

    def _emit(self, sequence: SequenceState, chunk: GenerationChunk) -> None:
        sequence.deliver(chunk)
        sequence.emitted += 1

    def _finish(self, sequence: SequenceState, chunk: GenerationChunk) -> None:
        self._emit(sequence, chunk)
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
        try:
            self._remove(sequence, cache=False)
        finally:
            sequence.deliver(error)

    def _remove(self, sequence: SequenceState, *, cache: bool = True) -> None:
        """The sequence is over: its slot is cached for what it holds, or given back."""
        try:
            if sequence.slot >= 0:
                if cache:
                    owner = sequence.prompt if sequence.prompt.pending else None
                    self._pool.retain(sequence, self._running, owner=owner)
                else:
                    self._pool.close(sequence)
            self._pool.disown(sequence)
        finally:
            for sequences in (self._running, self._preempted, self._waiting, self._arrivals):
                if sequence in sequences:
                    sequences.remove(sequence)

    def _restored(self, sequence: SequenceState) -> bool:
        """Whether the slot holds again what the sequence has computed, after a step that broke off."""
        try:
            self._engine.truncate(sequence.slot, sequence.computed)
            return self._engine.length(sequence.slot) == sequence.computed
        except Exception:  # the engine no longer knows the slot: the sequence has nothing to go on with
            return False


def internal_error(what: str) -> SlmError:
    """A fault that is not the caller's."""
    return SlmError("E_INTERNAL", what, hint="Tente de novo; se repetir, abra o modelo outra vez.")
