"""The rows that one engine works on: who has a slot, and what each step runs. One thread at a time.

A step is one of two: a token for every row that has its prompt behind it, or up to `PREFILL_CHUNK` tokens
of prompts. While both are wanted they take turns, so a long prompt delays the others' tokens by one chunk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import ParamSpec, cast

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.generation.row import Row
from ptbr_slm.runtime.generation.slot_pool import KEEP_BYTES, SlotPool
from ptbr_slm.runtime.sampling.draws import DrawingEngine
from ptbr_slm.runtime.slots import PREFILL_CHUNK
from ptbr_slm.runtime.types import Engine, Floats, GenerationChunk

MAX_BATCH = 16
"""Rows decoded together; further ones wait in order, so that memory does not follow their number."""

P = ParamSpec("P")


class Batch:
    """Rows in, chunks out (`Row.deliver`). What it does follows from the order of the calls alone.

    `submit` and `Row.abandoned` may be used from any thread; everything else by one thread at a time.
    """

    def __init__(self, engine: Engine, *, limit: int | None = None, keep_bytes: int = KEEP_BYTES) -> None:
        self._engine = engine
        self._limit = MAX_BATCH if limit is None else limit
        self._pool = SlotPool(engine, self._limit, keep_bytes)
        self._arrivals: deque[Row] = deque()
        self._waiting: deque[Row] = deque()
        self._placed: list[Row] = []
        """Rows with a slot."""
        self._parked: list[Row] = []
        """Rows that gave their slot away because their reader rests."""
        self._prefill_next = True

    def submit(self, row: Row) -> None:
        """Hand in a row; the next step sees it."""
        self._arrivals.append(row)

    @property
    def rows(self) -> list[Row]:
        """All rows that are not over."""
        return [*self._placed, *self._parked, *self._waiting, *self._arrivals]

    def step(self) -> None:
        """One run of the engine, or none where nothing is to be done. Errors go to the rows they concern."""
        self.sweep()
        self._admit()
        behind = [row for row in self._placed if not row.decoding]
        ready = [row for row in self._placed if row.decoding and not row.rest()]
        prefill = bool(behind) and (self._prefill_next or not ready)
        self._prefill_next = not prefill
        if prefill:
            self._prefill(behind)
        elif ready:
            self._decode(ready)
        self._pool.settle(self._placed, idle=not self.rows)

    def sweep(self) -> None:
        """Let go of rows that nobody reads, end those that are cancelled or out of time. Runs nothing."""
        while self._arrivals:
            self._waiting.append(self._arrivals[0])
            self._arrivals.popleft()
        for row in self.rows:
            if row.abandoned:
                self._remove(row)
            elif (reason := row.overdue()) is not None:
                self._finish(row, row.end(reason))
        for row in [row for row in self._parked if not row.rest()]:
            self._waiting.appendleft(row)
            self._parked.remove(row)

    def fail_all(self, error: Callable[[], Exception]) -> None:
        """End every row with an error of its own."""
        for row in self.rows:
            with suppress(Exception):  # a slot that cannot be closed keeps no caller waiting
                self._fail(row, error())

    def recover(self) -> None:
        """After Ctrl-C in the middle of a step: the rows it left half-done end, the others go on."""
        for row in dict.fromkeys(self.rows):
            unfinished = row.scores is None and row.fed >= len(row.ids)
            if row.reason is not None:  # its last chunk is out
                self._remove(row)
            elif row.made != row.generated or unfinished or not (row.slot < 0 or self._restored(row)):
                self._fail(row, internal_error("a geração foi interrompida no meio de um passo."))
            else:
                self._file(row)

    def forget(self) -> None:
        """Give back the slots kept for their beginnings."""
        self._pool.clear()

    def _file(self, row: Row) -> None:
        """Put a row that was on its way from one list to the next into one of them."""
        for rows in (self._placed, self._parked, self._waiting, self._arrivals):
            while row in rows:
                rows.remove(row)
        if row.slot >= 0:
            self._placed.append(row)
        else:
            self._waiting.appendleft(row)

    def _admit(self) -> None:
        """Give waiting rows slots, in order; where none is left, one whose row rests."""
        while self._waiting:
            row = self._waiting[0]
            prompt = row.prompt
            if prompt.leader is not None and prompt.logits is None and not row.started:
                return  # another completion is running this prompt
            if len(self._placed) >= self._limit and not self._park():
                return
            self._placed.append(row)  # never in no list, not even at a Ctrl-C
            self._waiting.popleft()
            self._guarded(row, self._pool.place, row, self._placed)

    def _park(self) -> bool:
        """Take the slot of a row that rests; False where none does."""
        row = next((row for row in self._placed if row.decoding and row.rest()), None)
        if row is None:
            return False
        self._parked.append(row)
        self._placed.remove(row)
        self._pool.keep(row, self._placed, owner=row)
        return True

    def _prefill(self, behind: Sequence[Row]) -> None:
        """Pieces of prompts, in order, `PREFILL_CHUNK` tokens in all."""
        budget = PREFILL_CHUNK
        for row in behind:
            piece = row.piece()
            if len(piece) > budget:
                return
            budget -= len(piece)
            self._guarded(row, self._prefill_piece, row, piece)

    def _prefill_piece(self, row: Row, piece: Sequence[int]) -> None:
        if row.scores is not None:
            logits, row.scores = row.scores, None
        else:
            logits = self._run_piece(row, piece)
        if row.fed == len(row.ids):
            prompt = row.prompt
            if prompt.leader is row and prompt.waiting and prompt.logits is None:
                prompt.logits = logits.copy()
            self._advance(row, logits)

    def _run_piece(self, row: Row, piece: Sequence[int]) -> Floats:
        """(V,) logits after the piece."""
        start = row.fed
        if row.scores_prompt:
            every = self._engine.extend(row.slot, piece)
            row.prompt_seen(start, every)
            logits: Floats = every[-1]
        else:
            logits = self._engine.prefill(row.slot, piece)
        row.fed += len(piece)
        if row.solid == start:
            row.solid = row.fed
        return logits

    def _decode(self, rows: Sequence[Row]) -> None:
        """One token for each row; more for a row that is alone and has a guess."""
        if len(rows) == 1 and (draft := rows[0].draft()):
            self._guarded(rows[0], self._check, rows[0], draft)
            return
        try:
            scores = self._scores(rows)
        except Exception as error:
            if len(rows) == 1:
                self._fail(rows[0], error)
                return
            for row in rows:  # one by one: only those that the error concerns have it again
                if self._restored(row):
                    self._decode([row])
                else:
                    self._fail(row, error)
            return
        for row, score in zip(rows, scores, strict=True):
            row.fed += 1
            self._guarded(row, self._advance, row, score)

    def _scores(self, rows: Sequence[Row]) -> Sequence[Floats | int]:
        """For each row (V,) logits after its last token, or the next token where the engine chose it."""
        slots, tokens = [row.slot for row in rows], [row.token for row in rows]
        if getattr(self._engine, "draws_tokens", False):
            engine = cast(DrawingEngine, self._engine)
            return engine.decode_drawn(slots, tokens, [row.draw() for row in rows])
        return list(self._engine.decode(slots, tokens))

    def _check(self, row: Row, draft: list[int]) -> None:
        """Run a guess in one go and keep what the sampler would have written anyway.

        The sampler chooses from each position's logits in turn and goes on only while its choice is the
        guess: the same text and the same draws as without guessing.
        """
        logits = self._engine.extend(row.slot, [row.token, *draft])  # (1 + len(draft), V)
        row.drafted += len(draft)
        for right, scores in enumerate(logits):
            row.fed += 1
            row.accepted += right > 0
            chunk = row.advance(scores)
            self._give(row, chunk)
            if chunk.finish_reason or right == len(draft) or row.token != draft[right]:
                break
        row.learn(len(draft), right)
        self._engine.truncate(row.slot, row.fed)
        if chunk.finish_reason:
            self._remove(row)

    def _advance(self, row: Row, scores: Floats | int) -> None:
        chunk = row.advance(scores)
        if chunk.finish_reason:
            self._finish(row, chunk)
        else:
            self._give(row, chunk)

    def _give(self, row: Row, chunk: GenerationChunk) -> None:
        row.deliver(chunk)
        row.made += 1

    def _finish(self, row: Row, chunk: GenerationChunk) -> None:
        self._give(row, chunk)
        self._remove(row)

    def _guarded(self, row: Row, action: Callable[P, None], *args: P.args, **options: P.kwargs) -> None:
        """What goes wrong with one row ends that row."""
        try:
            action(*args, **options)
        except Exception as error:
            self._fail(row, error)

    def _fail(self, row: Row, error: Exception) -> None:
        try:
            self._remove(row, keep=False)
        finally:
            row.deliver(error)

    def _remove(self, row: Row, *, keep: bool = True) -> None:
        """The row is over: its slot is kept for what it holds, or given back."""
        try:
            if row.slot >= 0:
                if keep:
                    self._pool.keep(row, self._placed, owner=row.prompt if row.prompt.waiting else None)
                else:
                    self._pool.close(row)
            self._pool.disown(row)
        finally:
            for rows in (self._placed, self._parked, self._waiting, self._arrivals):
                if row in rows:
                    rows.remove(row)

    def _restored(self, row: Row) -> bool:
        """Whether the slot holds again what the row knows of, after a step that broke off."""
        try:
            self._engine.truncate(row.slot, row.fed)
            return self._engine.length(row.slot) == row.fed
        except Exception:  # the engine no longer knows the slot: the row has nothing to go on with
            return False


def internal_error(what: str) -> SlmError:
    """A fault that is not the caller's."""
    return SlmError("E_INTERNAL", what, hint="Tente de novo; se repetir, abra o modelo outra vez.")
