"""An engine without a model, for tests of what runs above the engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ptbr_slm.config import ModelConfig
from ptbr_slm.runtime.drafting.layer import DraftScores
from ptbr_slm.runtime.protocol import Floats, closed_error
from ptbr_slm.runtime.sampling.params import Draw
from ptbr_slm.runtime.targets import Targets, TokenScores, score_rows
from ptbr_slm.tokenizer import Tokenizer


class ToyEngine:
    """`Engine` whose logits are a hash of the slot's tokens, so that any mix-up of slots shows.

    memory: how many of the last tokens count, all without one; with one the text soon repeats itself.
    fail: called with (what, slots) before each run; may raise.
    """

    name = "toy"
    device = "cpu"
    draws_tokens = False
    draft_acceptance: float | None = None
    kv_bytes = 0

    def __init__(
        self, tokenizer: Tokenizer, precision: str = "fp32", memory: int | None = None, context: int = 512
    ) -> None:
        self.tokenizer = tokenizer
        self.precision = precision
        self.config = ModelConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=64,
            num_layers=1,
            num_heads=1,
            num_kv_heads=1,
            head_dim=64,
            intermediate_size=64,
            max_seq_len=context,
        )
        self.memory = memory
        shape = (1000, self.config.vocab_size)
        self.table = np.random.default_rng(1).standard_normal(shape, dtype=np.float32) * 2
        self.fail: Callable[[str, list[int]], None] = lambda what, slots: None
        self.slots: dict[int, list[int]] = {}
        self.runs: list[tuple[str, int]] = []  # (what, tokens)
        self.most_slots = 0
        self.closed = False

    def reset(self, slots: int, capacity: int) -> None:
        self.slots = {slot: [] for slot in range(slots)}

    def open_slot(self) -> int:
        slot = next(slot for slot in range(len(self.slots) + 1) if slot not in self.slots)
        self.slots[slot] = []
        self.most_slots = max(self.most_slots, len(self.slots))
        return slot

    def close_slot(self, slot: int) -> None:
        del self.slots[slot]  # twice is an error here

    def length(self, slot: int) -> int:
        return len(self.slots[slot])

    def truncate(self, slot: int, length: int) -> None:
        del self.slots[slot][length:]

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        assert length <= len(self.slots[source])
        self.slots[target] = self.slots[source][:length]

    def prefill(self, slot: int, tokens: Sequence[int]) -> Floats:
        return self._run("prefill", [slot], [tokens])[0]

    def extend(self, slot: int, tokens: Sequence[int], *, lent: bool = False) -> Floats:
        return self._run("extend", [slot] * len(tokens), [[token] for token in tokens])

    def decode(self, slots: Sequence[int], tokens: Sequence[int], *, lent: bool = False) -> Floats:
        assert len(set(slots)) == len(slots) == len(tokens)
        return self._run("decode", slots, [[token] for token in tokens])

    def decode_drawn(
        self, slots: Sequence[int], tokens: Sequence[int], draws: Sequence[Draw | None]
    ) -> Sequence[int | Floats]:
        return list(self.decode(slots, tokens))

    def draft(self, slot: int, token: int) -> DraftScores | None:
        return None

    def logits(self, tokens: Sequence[int]) -> Floats:
        slot = self.open_slot()
        found = self.extend(slot, tokens)
        self.close_slot(slot)
        return found

    def scoring(self) -> ToyScoring:
        return ToyScoring(self)

    def describe(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        self.closed = True

    def _run(self, what: str, slots: Sequence[int], chunks: Sequence[Sequence[int]]) -> Floats:
        """(len(slots), V) logits after each chunk."""
        if self.closed:
            raise closed_error()
        assert all(chunks)
        self.runs.append((what, sum(map(len, chunks))))
        self.fail(what, list(dict.fromkeys(slots)))
        logits = []
        for slot, chunk in zip(slots, chunks, strict=True):
            ids = self.slots[slot]
            ids += chunk
            assert len(ids) <= self.config.max_seq_len
            mixed = hash(tuple(ids[-(self.memory or 0) :]))
            logits.append(self.table[mixed % 997] + self.table[mixed // 997 % 991])
        return np.stack(logits)


class ToyScoring:
    """`ScoringSession` of a toy engine, in slots of that engine. Branches advance by a token a step."""

    branches_free = 4
    branch_tokens = 5
    texts_tokens = 40

    def __init__(self, engine: ToyEngine) -> None:
        self.engine = engine
        self.slots = [engine.open_slot()]
        self.staged: list[tuple[int, Sequence[int], Targets]] = []

    def prepare(self, longest: int) -> None:
        self.longest = longest
        self.truncate(0)

    def truncate(self, length: int) -> None:
        self.engine.truncate(self.slots[0], length)

    def append(self, tokens: Sequence[int], targets: Targets) -> TokenScores:
        assert self.engine.length(self.slots[0]) + len(tokens) <= self.longest
        positions, rows = targets.positions()
        logits = self.engine.extend(self.slots[0], tokens)
        return score_rows(logits[positions], rows, targets.tokens)

    def branch(self, tokens: Sequence[int], targets: Targets) -> None:
        assert self.branches_free
        slot = self.engine.open_slot()
        self.slots.append(slot)
        self.engine.copy_prefix(self.slots[0], slot, self.engine.length(self.slots[0]))
        self.staged.append((slot, tokens, targets))
        self.branches_free -= 1

    def step(self) -> bool:
        self.done = [
            score_rows(self.engine.extend(slot, tokens), targets.after, targets.tokens)
            for slot, tokens, targets in self.staged
        ]
        return False

    def take(self) -> list[TokenScores]:
        for slot, _, _ in self.staged:
            self.slots.remove(slot)
            self.engine.close_slot(slot)
        found = self.done if self.staged else []
        self.staged, self.branches_free = [], 4
        return found

    def texts(self, texts: Sequence[Sequence[int]], targets: Sequence[Targets]) -> list[TokenScores]:
        found = []
        for text, each in zip(texts, targets, strict=True):
            positions, rows = each.positions()
            found.append(score_rows(self.engine.logits(text)[positions], rows, each.tokens))
        return found

    def close(self) -> None:
        for slot in self.slots:
            self.engine.close_slot(slot)
