"""Keys and values of all slots: what moves keeps its tokens, and what is not used takes no memory."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest

from ptbr_slm.config import ModelConfig
from ptbr_slm.runtime.engines.onnx.kv_cache import KVCaches


def config(context=4096):
    return ModelConfig(
        vocab_size=300,
        hidden_size=128,
        num_layers=4,
        num_heads=2,
        num_kv_heads=2,
        head_dim=64,
        intermediate_size=64,
        max_seq_len=context,
    )


def append(caches, slot, value, tokens):
    """As a run of the model: writes the next positions of a slot."""
    index = caches.index(slot)
    start = int(caches.lengths[index])
    caches.ensure(start + tokens)
    for array in caches.arrays:
        array[caches.index(slot), :, start : start + tokens] = value
    caches.lengths[caches.index(slot)] += tokens


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("seed", range(5))
def test_every_slot_keeps_its_tokens_however_slots_grow_move_and_end(seed):
    chance = random.Random(seed)
    caches, wanted = KVCaches(config(1024)), {}
    for number in range(60):
        if len(wanted) < 3 or chance.random() < 0.4:
            wanted[caches.open()] = []
        slot = chance.choice(list(wanted))
        tokens = chance.randint(1, 120)
        if len(wanted[slot]) + tokens <= 1024:
            append(caches, slot, number, tokens)
            wanted[slot] += [number] * tokens
        caches.gather(chance.sample(list(wanted), min(3, len(wanted))))
        if chance.random() < 0.2:
            gone = chance.choice(list(wanted))
            caches.close(gone)
            del wanted[gone]
        for slot, values in wanted.items():
            index = caches.index(slot)
            assert caches.lengths[index] == len(values)
            for array in caches.arrays:
                np.testing.assert_array_equal(array[index, 1, : len(values), 5], values)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
def test_short_texts_take_no_memory_for_the_long_one_beside_them():
    """From outside, before: 54 MB resident where 3.7 MB were needed. Here 31 short texts and one of 4,096."""
    token_bytes = 2 * 4 * 128 * 4
    before = resident_bytes()
    caches = KVCaches(config())
    slots = [caches.open() for _ in range(32)]
    for slot in slots:
        append(caches, slot, 1.0, 16)
    append(caches, slots[0], 2.0, 4000)  # capacity grows to 4,096 for all
    caches.gather([slots[0], slots[31]])  # and slots move
    needed = (4016 + 31 * 16) * token_bytes
    assert caches.nbytes == 32 * 4096 * token_bytes  # 512 MB of addresses
    assert resident_bytes() - before < 2 * needed + (24 << 20)  # 18 MB needed; pages, and one array twice
