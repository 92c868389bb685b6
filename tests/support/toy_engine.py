"""An engine without a model, for tests of what stands above the engines."""

from __future__ import annotations

import numpy as np

from ptbr_slm.config import ModelConfig
from ptbr_slm.runtime.protocol import closed_error


class ToyEngine:
    """`Engine` without a model: logits are a hash of the slot's tokens, so any mix-up of slots shows.

    memory: how many of the last tokens count, all without one; with one the text soon repeats itself.
    fail: called with (what, slots) before each run; may raise.
    """

    name = "toy"
    device = "cpu"
    draws_tokens = False
    kv_bytes = 0

    def __init__(self, tokenizer, precision="fp32", memory=None, context=512):
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
        self.fail = lambda what, slots: None
        self.slots: dict[int, list[int]] = {}
        self.runs: list[tuple[str, int]] = []  # (what, tokens)
        self.most_slots = 0
        self.closed = False

    def open_slot(self):
        slot = next(slot for slot in range(len(self.slots) + 1) if slot not in self.slots)
        self.slots[slot] = []
        self.most_slots = max(self.most_slots, len(self.slots))
        return slot

    def close_slot(self, slot):
        del self.slots[slot]  # twice is an error here

    def length(self, slot):
        return len(self.slots[slot])

    def truncate(self, slot, length):
        del self.slots[slot][length:]

    def copy_prefix(self, source, target, length):
        assert length <= len(self.slots[source])
        self.slots[target] = self.slots[source][:length]

    def prefill(self, slot, tokens):
        return self._run("prefill", [slot], [tokens])[0]

    def extend(self, slot, tokens):
        return self._run("extend", [slot] * len(tokens), [[token] for token in tokens])

    def decode(self, slots, tokens):
        assert len(set(slots)) == len(slots) == len(tokens)
        return self._run("decode", slots, [[token] for token in tokens])

    def close(self):
        self.closed = True

    def _run(self, what, slots, pieces):
        """(len(slots), V) logits after each piece."""
        if self.closed:
            raise closed_error()
        assert all(pieces)
        self.runs.append((what, sum(map(len, pieces))))
        self.fail(what, list(dict.fromkeys(slots)))
        logits = []
        for slot, piece in zip(slots, pieces, strict=True):
            ids = self.slots[slot]
            ids += piece
            assert len(ids) <= self.config.max_seq_len
            mixed = hash(tuple(ids[-(self.memory or 0) :]))
            logits.append(self.table[mixed % 997] + self.table[mixed // 997 % 991])
        return np.stack(logits)
