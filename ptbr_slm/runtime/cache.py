"""The prefix cache: slots of finished texts, from which a sequence that begins alike takes its first tokens.

Reusing a prefix changes no text, except where the last bits of fp32 logits decide a choice: in fp32 the
kernels give the same values to 2e-5 however many tokens run at once (to the last bit on some CPUs). The int8
and int4 kernels round a token that is alone, or odd at the end of its group, another way (0.2 of a logit on a
model with a range of 11). There only `GRAIN`-aligned tokens of an ordinary prefill are reused: the rest
is then cut into the same groups as in a fresh run, and equal to the last bit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ptbr_slm.runtime.pace import GRAIN
from ptbr_slm.runtime.protocol import Engine, bucket
from ptbr_slm.runtime.sequence import PromptState, SequenceState

CACHE_BYTES = 128 << 20
"""Limit for the slots of finished texts: 24 of 256 tokens of an 85m in fp32, 3 of 2,048."""

SHORTEST = 8
"""Tokens in common from which on a prefix is worth reusing."""

Ids = npt.NDArray[np.int64]
Running = Collection[SequenceState]


@dataclass(eq=False, slots=True)
class CachedSlot:
    """A slot that no running sequence uses, and the tokens in it."""

    slot: int
    ids: Ids
    """(T,) all of the tokens whose keys and values the slot holds."""
    exact: int
    """See `SequenceState.exact`."""
    owner: PromptState | None = None
    """The prompt whose completions still wait."""
    tenant: str = ""
    """Whose text it is: nobody else's prompt begins from it."""


class PrefixCache:
    """Cached slots, least recently used first. It only remembers: the engine is the pool's to call."""

    def __init__(self) -> None:
        self._slots: list[CachedSlot] = []

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[CachedSlot]:
        return iter(self._slots)

    def add(self, cached: CachedSlot) -> None:
        """Remember as the most recently used."""
        self._slots.append(cached)

    def remove(self, cached: CachedSlot) -> None:
        """Forget; the slot belongs to the caller again."""
        self._slots.remove(cached)

    def touch(self, cached: CachedSlot) -> None:
        """Mark as the most recently used: the last to be evicted."""
        self._slots.remove(cached)
        self._slots.append(cached)

    def oldest(self) -> CachedSlot:
        """The one to evict first."""
        return self._slots[0]


class SlotPool:
    """Opens, caches and closes slots. Where `running` is asked for, it is all sequences with a slot."""

    def __init__(self, engine: Engine, limit: int, cache_bytes: int) -> None:
        """limit: cached slots at most. cache_bytes: their bytes at most."""
        config = engine.config
        self._engine = engine
        self._limit = limit
        self._cache_bytes = cache_bytes
        self._alignment = 1 if engine.precision == "fp32" else GRAIN
        self._context = config.max_seq_len
        self._token_bytes = 2 * config.num_layers * config.kv_size * 4
        # An engine starts with one slot: its bytes are the least that any will take.
        self._least_bytes = engine.kv_bytes
        self._cache = PrefixCache()
        self._peak = 0

    def assign(self, sequence: SequenceState, running: Running) -> None:
        """Give a sequence, which is among `running`, a slot with as much of its prefix as is cached."""
        sequence.started = True
        sequence.mark_admitted()
        if sequence.prompt.logits is None or not self._share_prompt(sequence, running):
            sequence.prompt.leader, sequence.prompt.logits = sequence, None
            self._start(sequence, running)
        sequence.reused = sequence.computed
        self._count_down(sequence.prompt)

    def retain(self, sequence: SequenceState, running: Running) -> None:
        """Take a sequence's slot and cache what it holds; close it where that is not worth it."""
        ids = np.array(sequence.ids[: sequence.computed], dtype=np.int64)
        prompt = sequence.prompt
        owner = prompt if prompt.pending else None
        cached = CachedSlot(sequence.slot, ids, sequence.exact, owner, prompt.tenant)
        sequence.slot, sequence.computed, sequence.exact = -1, 0, 0
        if len(cached.ids) < SHORTEST:
            self._engine.close_slot(cached.slot)
            return
        self._cache.add(cached)
        self.evict(running, idle=False)

    def close(self, sequence: SequenceState) -> None:
        """Give a sequence's slot back."""
        self._engine.close_slot(sequence.slot)
        sequence.slot, sequence.computed, sequence.exact = -1, 0, 0

    def disown(self, sequence: SequenceState) -> None:
        """The sequence is over: its prompt waits for it no longer."""
        prompt = sequence.prompt
        if not sequence.started:
            sequence.started = True
            self._count_down(prompt)
        elif prompt.leader is sequence:
            prompt.leader = None
            if not sequence.generated and prompt.logits is None:  # another completion has to run the prompt
                prompt.logprobs[:] = [None]

    def make_room(self, sequence: SequenceState, running: Running, limit: int) -> bool:
        """Whether a sequence fits beside `running` in `limit` bytes, each at its full length.

        Closes cached slots where they are in its way.
        """
        longest = max(other.full_length for other in (*running, sequence))
        slot_bytes = max(bucket(longest, self._context) * self._token_bytes, self._least_bytes)
        fitting = limit // slot_bytes
        slots = 1 << max(0, fitting.bit_length() - 1)  # the number of slots doubles: half of it may be spare
        if len(running) + 1 > slots:
            return False
        while len(running) + 1 + len(self._cache) > slots:
            self._drop(self._cache.oldest())
        return True

    def evict(self, running: Running, *, idle: bool) -> None:
        """Close cached slots that are too many or too large."""
        slot_bytes = self._slot_bytes(running)
        self._peak = max(self._peak, (len(running) + len(self._cache)) * slot_bytes)
        if idle and self._peak > 2 * self._cache_bytes:  # its buffers shrink once no slot is open
            self.clear()
        while len(self._cache) > min(self._limit, self._cache_bytes // slot_bytes):
            self._drop(self._cache.oldest())
        if not running and not self._cache:
            self._peak = 0

    @property
    def cached(self) -> int:
        """Slots of finished texts."""
        return len(self._cache)

    def clear(self) -> None:
        """Close all cached slots."""
        for cached in list(self._cache):
            self._drop(cached)

    def _share_prompt(self, sequence: SequenceState, running: Running) -> bool:
        """The whole prompt and its logits from another of its completions; False where all are gone."""
        prompt = sequence.prompt
        length = len(prompt.ids)
        other = next(
            (s for s in running if s.prompt is prompt and s.slot >= 0 and s.computed >= length), None
        )
        cached = next((cached for cached in self._cache if cached.owner is prompt), None)
        if other is not None:
            self._copy(sequence, other.slot, length)
        elif cached is not None and self._is_valid(cached):
            self._reuse(sequence, cached, length)
        else:
            return False
        assert prompt.logits is not None
        sequence.first_logits = prompt.logits.copy()
        return True

    def _start(self, sequence: SequenceState, running: Running) -> None:
        """The longest prefix that is in a slot already, or an empty slot."""
        source, length = (None, 0) if sequence.needs_prompt_logprobs else self._longest(sequence, running)
        if source is None:
            sequence.slot = self._engine.open_slot()
        elif isinstance(source, SequenceState):
            self._copy(sequence, source.slot, length)
        elif 2 * length >= len(source.ids):
            self._reuse(sequence, source, length)
        else:  # more would be lost than won
            self._cache.touch(source)
            self._copy(sequence, source.slot, length)

    def _longest(
        self, sequence: SequenceState, running: Running
    ) -> tuple[CachedSlot | SequenceState | None, int]:
        ids, tenant = np.array(sequence.ids, dtype=np.int64), sequence.prompt.tenant
        best: tuple[CachedSlot | SequenceState | None, int] = (None, 0)
        sources: list[tuple[CachedSlot | SequenceState, Ids | Sequence[int], int]] = [
            (cached, cached.ids, cached.exact)
            for cached in self._cache
            if cached.tenant == tenant and self._is_valid(cached)
        ]
        sources += [
            (other, other.ids[: other.computed], other.exact)
            for other in running
            if other.slot >= 0 and other.prompt.tenant == tenant
        ]
        for source, others, exact in sources:
            length = self._reusable(common_length(ids, others), exact, len(ids))
            if length > best[1]:
                best = (source, length)
        return best

    def _reusable(self, common: int, exact: int, total: int) -> int:
        """Tokens of a common prefix to reuse: the last one is run again for its logits."""
        if self._alignment == 1:
            length = min(common, total - 1)
        else:  # two at least are run again: a token alone would round another way
            length = min(common, exact, total - 2)
            length -= length % self._alignment
        return length if length >= SHORTEST else 0

    def _is_valid(self, cached: CachedSlot) -> bool:
        """Whether the slot still holds these tokens: someone may have reset the engine."""
        try:
            return self._engine.length(cached.slot) == len(cached.ids)
        except Exception:  # each engine has its own way to say that it does not know a slot
            return False

    def _reuse(self, sequence: SequenceState, cached: CachedSlot, length: int) -> None:
        self._cache.remove(cached)
        sequence.slot = cached.slot
        self._engine.truncate(cached.slot, length)
        sequence.computed, sequence.exact = length, min(cached.exact, length)

    def _copy(self, sequence: SequenceState, source: int, length: int) -> None:
        sequence.slot = self._engine.open_slot()
        self._engine.copy_prefix(source, sequence.slot, length)
        sequence.computed = sequence.exact = length

    def _drop(self, cached: CachedSlot) -> None:
        self._cache.remove(cached)
        self._engine.close_slot(cached.slot)

    def _slot_bytes(self, running: Running) -> int:
        """Of any slot: each has the capacity for the longest text there is."""
        longest = max((len(sequence.ids) for sequence in running), default=0)
        longest = max((longest, *(len(cached.ids) for cached in self._cache)))
        return max(bucket(longest, self._context) * self._token_bytes, self._least_bytes)

    @staticmethod
    def _count_down(prompt: PromptState) -> None:
        prompt.pending -= 1
        if not prompt.pending:
            prompt.logits = None


def common_length(ids: Ids, others: Ids | Sequence[int]) -> int:
    """Tokens that two texts have in common from the start."""
    size = min(len(ids), len(others))
    differ = np.flatnonzero(ids[:size] != np.asarray(others[:size], dtype=np.int64))
    return int(differ[0]) if len(differ) else size
