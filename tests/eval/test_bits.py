"""Bits per byte: windows, targets that count, and the nats of a model's logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.eval.bits import UNCOUNTED, EncodedText, HeldOut, bits_per_byte, held_out_windows
from ptbr_slm.loss import IGNORE


def test_a_uniform_guess_costs_log2_v_bits_a_token_and_special_tokens_cost_nothing():
    targets = np.array([[1, 2, UNCOUNTED, 3]])
    text = HeldOut(np.array([[0, 1, 2, 0]]), targets, bytes=8)
    measured = bits_per_byte(lambda ids: [np.zeros((len(ids), 4), dtype=np.float32)], text)
    assert (measured.targets, measured.bytes) == (3, 8)
    assert measured.value == text.value(measured.nats) == pytest.approx(3 * math.log2(4) / 8)


@pytest.mark.parametrize("part", [300, 128, 7])
def test_the_nats_are_pytorchs_cross_entropy_in_whatever_parts_the_logits_come(part):
    generator = np.random.default_rng(0)
    table = (30 * generator.standard_normal((300, 50))).astype(np.float32)
    ids = generator.integers(0, 50, 301)
    ids[[5, 299]] = UNCOUNTED
    text = HeldOut(np.maximum(ids[None, :-1], 0), ids[None, 1:], bytes=1)
    measured = bits_per_byte(lambda _: (table[i : i + part] for i in range(0, 300, part)), text)
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(table).double(), torch.from_numpy(ids[1:]), reduction="sum"
    )
    assert UNCOUNTED == IGNORE
    assert measured.nats == pytest.approx(float(expected), rel=1e-6)


def test_every_target_of_a_part_counts_once_and_its_bytes_are_the_texts(prepared, tokenizer):
    split = PreparedData.open(prepared).split("valid")
    text = held_out_windows(split, tokenizer, 32, 10**9)
    assert text.bytes == split.bytes
    whole = np.concatenate([text.inputs[0][:1], *(targets for targets in text.targets)])[: split.tokens]
    ids = split.read(0, split.tokens)
    counts = ~np.isin(ids, list(tokenizer.special_ids))
    assert np.array_equal(whole[1:][counts[1:]], ids[1:][counts[1:]]) and text.counted == counts[1:].sum()


def test_a_padded_last_window_is_read_without_its_padding(tokenizer):
    ids = np.array(tokenizer.encode("A feira da rua Doze começa antes do sol."))
    text = held_out_windows(EncodedText(ids), tokenizer, len(ids) - 4, 10**9)
    lengths = [len(inputs) for inputs, _ in text.windows()]
    assert lengths == [len(ids) - 4, 3] and text.inputs.shape == (2, len(ids) - 4)
