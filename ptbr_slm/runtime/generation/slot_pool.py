"""Slots for rows: new, taken from a text that is over and begins alike, or copied from one in the making.

Taking a beginning changes no text but where the last bits of fp32 logits decide a choice: in fp32 the kernels
give the same values to 2e-5 however many tokens run at once (to the last bit on some CPUs). The int8 and int4
kernels round a token that is alone, or odd at the end of its group, another way (0.2 of a logit on a model
with a range of 11), so there only `GRAIN`-aligned tokens of an ordinary prefill are taken: the rest is then
cut into the same groups as in a fresh run, and equal to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ptbr_slm.runtime.generation.prefix import SHORTEST, Ids, Kept, PrefixCache, common_length
from ptbr_slm.runtime.generation.row import Prompt, Row
from ptbr_slm.runtime.slots import bucket
from ptbr_slm.runtime.types import Engine

KEEP_BYTES = 128 << 20
"""What the slots of texts that are over may take: 24 of 256 tokens of an 85m in fp32, 3 of 2,048."""

GRAIN = 16
"""Tokens: a multiple of the rows that any of the quantised kernels takes at once (2 on AVX-512)."""


class SlotPool:
    """Opens, keeps and closes slots. Who has a row in hand passes `placed`, all rows with a slot."""

    def __init__(self, engine: Engine, limit: int, keep_bytes: int) -> None:
        config = engine.config
        self._engine = engine
        self._limit = limit
        self._keep_bytes = keep_bytes
        self._grain = 1 if engine.precision == "fp32" else GRAIN
        self._context = config.max_seq_len
        self._token_bytes = 2 * config.num_layers * config.kv_size * 4
        # An engine starts with one slot: its bytes are the least that any will take.
        self._least_bytes = int(getattr(engine, "kv_bytes", 0))
        self._kept = PrefixCache()
        self._peak = 0

    def place(self, row: Row, placed: Sequence[Row]) -> None:
        """Give a row, which is among `placed`, a slot with as much of its beginning as there is."""
        if row.started:
            self._return(row, placed)
            return
        row.started = True
        if row.prompt.logits is None or not self._share(row, placed):
            row.prompt.leader, row.prompt.logits = row, None
            self._begin(row, placed)
        row.reused = row.fed
        self._count_down(row.prompt)

    def keep(self, row: Row, placed: Sequence[Row], owner: Row | Prompt | None) -> None:
        """Take a row's slot and remember what it holds; close it where that is not worth it."""
        kept = Kept(row.slot, np.array(row.ids[: row.fed], dtype=np.int64), row.solid, owner)
        row.slot, row.fed, row.solid = -1, 0, 0
        if len(kept.ids) < SHORTEST:
            self._engine.close_slot(kept.slot)
            return
        self._kept.add(kept)
        self.settle(placed, idle=False)

    def close(self, row: Row) -> None:
        """Give a row's slot back."""
        self._engine.close_slot(row.slot)
        row.slot, row.fed, row.solid = -1, 0, 0

    def disown(self, row: Row) -> None:
        """The row is over and will not come for anything."""
        for kept in self._kept:
            if kept.owner is row:
                kept.owner = None
        prompt = row.prompt
        if not row.started:
            row.started = True
            self._count_down(prompt)
        elif prompt.leader is row and not row.generated:  # another completion has to run the prompt
            prompt.leader = None
            prompt.logprobs[:] = [None]

    def settle(self, placed: Sequence[Row], *, idle: bool) -> None:
        """Give up kept slots that are too many or too large."""
        slot_bytes = self._slot_bytes(placed)
        self._peak = max(self._peak, (len(placed) + len(self._kept)) * slot_bytes)
        if idle and self._peak > 2 * self._keep_bytes:  # its buffers shrink once no slot is open
            self.clear()
        while len(self._kept) > min(self._limit, self._keep_bytes // slot_bytes):
            self._drop(self._kept.oldest())
        if not placed and not self._kept:
            self._peak = 0

    def clear(self) -> None:
        """Close all kept slots."""
        for kept in list(self._kept):
            self._drop(kept)

    def _return(self, row: Row, placed: Sequence[Row]) -> None:
        """Back from a rest: its own slot as it was left, or else the text is run again."""
        own = next((kept for kept in self._kept if kept.owner is row), None)
        if own is not None and self._holds(own):
            self._take(row, own, len(own.ids))
        else:
            self._begin(row, placed)

    def _share(self, row: Row, placed: Sequence[Row]) -> bool:
        """The whole prompt and its logits from another of its completions; False where all are gone."""
        prompt = row.prompt
        length = len(prompt.ids)
        sibling = next((r for r in placed if r.prompt is prompt and r.slot >= 0 and r.fed >= length), None)
        kept = next((kept for kept in self._kept if kept.owner is prompt), None)
        if sibling is not None:
            self._copy(row, sibling.slot, length)
        elif kept is not None and self._holds(kept):
            self._take(row, kept, length)
        else:
            return False
        assert prompt.logits is not None
        row.scores = prompt.logits.copy()
        return True

    def _begin(self, row: Row, placed: Sequence[Row]) -> None:
        """The longest beginning that is in a slot already, or an empty slot."""
        source, length = (None, 0) if row.scores_prompt else self._longest(row, placed)
        if source is None:
            row.slot = self._engine.open_slot()
        elif isinstance(source, Row):
            self._copy(row, source.slot, length)
        elif 2 * length >= len(source.ids):
            self._take(row, source, length)
        else:  # more would be lost than won
            self._kept.touch(source)
            self._copy(row, source.slot, length)

    def _longest(self, row: Row, placed: Sequence[Row]) -> tuple[Kept | Row | None, int]:
        ids = np.array(row.ids, dtype=np.int64)
        best: tuple[Kept | Row | None, int] = (None, 0)
        sources: list[tuple[Kept | Row, Ids | Sequence[int], int]] = [
            (kept, kept.ids, kept.solid) for kept in self._kept if self._holds(kept)
        ]
        sources += [(other, other.ids[: other.fed], other.solid) for other in placed if other.slot >= 0]
        for source, others, solid in sources:
            length = self._usable(common_length(ids, others), solid, len(ids))
            if length > best[1]:
                best = (source, length)
        return best

    def _usable(self, common: int, solid: int, total: int) -> int:
        """Tokens of a common beginning to take: the last one is run again for its logits."""
        if self._grain == 1:
            length = min(common, total - 1)
        else:  # two at least are run again: a token alone would round another way
            length = min(common, solid, total - 2)
            length -= length % self._grain
        return length if length >= SHORTEST else 0

    def _holds(self, kept: Kept) -> bool:
        """Whether the slot is still what it was: someone may have reset the engine."""
        try:
            return self._engine.length(kept.slot) == len(kept.ids)
        except Exception:  # each engine has its own way to say that it does not know a slot
            return False

    def _take(self, row: Row, kept: Kept, length: int) -> None:
        self._kept.remove(kept)
        row.slot = kept.slot
        self._engine.truncate(kept.slot, length)
        row.fed, row.solid = length, min(kept.solid, length)

    def _copy(self, row: Row, source: int, length: int) -> None:
        row.slot = self._engine.open_slot()
        self._engine.copy_prefix(source, row.slot, length)
        row.fed = row.solid = length

    def _drop(self, kept: Kept) -> None:
        self._kept.remove(kept)
        self._engine.close_slot(kept.slot)

    def _slot_bytes(self, placed: Sequence[Row]) -> int:
        """Of any slot: each has room for the longest text there is."""
        longest = max((len(row.ids) for row in placed), default=0)
        longest = max((longest, *(len(kept.ids) for kept in self._kept)))
        return max(bucket(longest, self._context) * self._token_bytes, self._least_bytes)

    @staticmethod
    def _count_down(prompt: Prompt) -> None:
        prompt.waiting -= 1
        if not prompt.waiting:
            prompt.logits = None
