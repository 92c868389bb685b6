"""Bits per byte: windows, targets that count, and the nats of a model's logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.eval.bits import (
    UNCOUNTED,
    EncodedText,
    HeldOut,
    bits_per_byte,
    document_nats,
    held_out_windows,
)
from ptbr_slm.loss import IGNORE


def test_a_window_of_several_texts_is_read_text_by_text():
    targets = np.array([[7, UNCOUNTED, UNCOUNTED, 5, 6, UNCOUNTED], [1, 2, 3, 4, 5, 6]])
    inputs = np.arange(12).reshape(2, 6)
    ids = np.array([[0, 0, 1, 1, 1, 2], [0] * 6], dtype=np.int32)
    found = [(i.tolist(), t.tolist()) for i, t in HeldOut(inputs, targets, 1, document_ids=ids).windows()]
    assert found == [
        ([0], [7]),
        ([2, 3, 4], [UNCOUNTED, 5, 6]),
        ([6, 7, 8, 9, 10, 11], [1, 2, 3, 4, 5, 6]),
    ]


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
    ids = split.read(0, split.tokens)
    counted = [targets[targets != UNCOUNTED] for targets in text.targets]
    wanted = ids[1:][~np.isin(ids[1:], list(tokenizer.special_ids))]
    assert np.array_equal(np.concatenate(counted), wanted) and text.counted == len(wanted)


@given(st.integers(2, 400), st.integers(1, 50), st.integers(1, 500))
def test_each_target_has_at_least_half_a_window_before_it(tokens, seq_len, wanted):
    """All of a text but its first window; the ids are positions, so that a window shows what it holds."""
    ids = np.arange(tokens)
    text = held_out_windows(EncodedText(ids), Positions(), seq_len, wanted)
    for inputs, targets in zip(text.inputs, text.targets, strict=True):
        places = np.flatnonzero(targets != UNCOUNTED)
        assert np.array_equal(inputs[places] + 1, targets[places])
        before = places + 1  # tokens of the window that precede a target
        assert (before >= np.minimum(targets[places], seq_len - seq_len // 2)).all()
    counted = text.targets[text.targets != UNCOUNTED]
    assert len(np.unique(counted)) == len(counted) == text.bytes
    assert len(counted) <= max(wanted, seq_len)
    if wanted >= tokens:
        assert np.array_equal(np.sort(counted), ids[1:])


class Positions:
    """A tokenizer whose ids are one byte each, none special."""

    special_ids = frozenset()

    def target_bytes(self, rows):
        return np.ones((rows.shape[0], rows.shape[1] - 1), np.int64)


def test_documents_share_the_nats_and_the_bytes(prepared, tokenizer):
    split = PreparedData.open(prepared).split("valid")
    text = held_out_windows(split, tokenizer, 32, 10**9, offsets=split.document_offsets())
    table = np.random.default_rng(0).standard_normal((tokenizer.vocab_size, tokenizer.vocab_size))

    def bigram(ids):
        return [table[ids].astype(np.float32)]

    nats, sizes = document_nats(bigram, text)
    assert len(nats) == split.documents
    assert sizes.sum() == text.bytes
    assert nats.sum() == pytest.approx(bits_per_byte(bigram, text).nats)
    first = split.read(0, int(split.document_offsets()[1]))
    alone = held_out_windows(EncodedText(first), tokenizer, len(first), 10**9)
    assert nats[0] == pytest.approx(bits_per_byte(bigram, alone).nats)


def test_a_padded_last_window_is_read_without_its_padding(tokenizer):
    ids = np.array(tokenizer.encode("A feira da rua Doze começa antes do sol."))
    text = held_out_windows(EncodedText(ids), tokenizer, 2 * len(ids), 10**9)
    assert [len(inputs) for inputs, _ in text.windows()] == [len(ids) - 1]


def test_a_last_window_that_holds_only_the_end_of_a_text_is_no_window(tokenizer):
    ids = np.array([tokenizer.bos_id, *tokenizer.encode("Oi, tudo bem?", special=False), tokenizer.eos_id])
    text = held_out_windows(EncodedText(ids), tokenizer, 2, 10**9, offsets=np.array([0, len(ids)]))
    assert len(list(text.windows())) == len(text.inputs) == len(text.documents)
    nats, sizes = document_nats(lambda tokens: [np.zeros((len(tokens), 4000), np.float32)], text)
    assert len(nats) == 1 and sizes.tolist() == [13]
