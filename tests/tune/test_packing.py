"""Rows of conversations: each conversation once an epoch, none cut, and the loss of the unpacked ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st
from tiny_chat import conversation_file, tiny_chat, tiny_tokenizer

from ptbr_slm.config import ModelConfig
from ptbr_slm.eval.bits import UNCOUNTED
from ptbr_slm.model import IGNORE, Llama
from ptbr_slm.train.batches import MicroBatch
from ptbr_slm.train.evaluate import bits_per_byte
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.tune.packing import ConversationBatches, Rows, held_out
from ptbr_slm.tune.prepared import prepare_conversations

TOKENIZER, CHAT = tiny_tokenizer(), tiny_chat()
SEQ_LEN = 200
SHAPE = ModelConfig(vocab_size=TOKENIZER.vocab_size, hidden_size=64, num_layers=2, num_heads=2,
                    num_kv_heads=1, head_dim=32, intermediate_size=96, max_seq_len=SEQ_LEN)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tune")
    path = conversation_file(folder / "a.jsonl", 120)
    return prepare_conversations([path], folder, CHAT, TOKENIZER, seq_len=SEQ_LEN, valid_fraction=0.2)


def batches(split, seed=0):
    return ConversationBatches(split, seq_len=SEQ_LEN, seed=seed, pad_id=TOKENIZER.pad_id)


@given(seq_len=st.integers(1, 300), seed=st.integers(0, 2**31), data=st.data())
@runs(max_examples=150, deadline=None)
def test_every_conversation_is_in_one_row_and_no_row_is_too_long(seq_len, seed, data):
    sizes = np.array(data.draw(st.lists(st.integers(1, seq_len), max_size=200)), np.int64)
    rows = Rows(sizes, seq_len, seed)
    members = [rows.conversations(row) for row in range(rows.rows)]
    assert sorted(np.concatenate([np.empty(0, np.int64), *members]).tolist()) == list(range(len(sizes)))
    assert all(0 < sizes[row].sum() <= seq_len for row in members)
    again = Rows(sizes, seq_len, seed)
    assert all(np.array_equal(row, again.conversations(at)) for at, row in enumerate(members))
    # Best fit needs less than 1.7 times the best number of rows, plus one (Johnson, 1973).
    assert rows.rows <= 1.7 * np.ceil(sizes.sum() / seq_len) + 1


def test_a_conversation_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="rows of 10"):
        Rows(np.array([3, 11]), 10, 0)


def test_rows_are_full_and_of_mixed_lengths():
    sizes = np.random.default_rng(0).lognormal(4.3, 0.8, 20_000).astype(np.int64).clip(5, 512)
    rows = Rows(sizes, 512, 0)
    assert rows.padding < 0.01
    other = Rows(sizes, 512, 1)
    assert not np.array_equal(rows.conversations(0), other.conversations(0))


@given(epoch=st.integers(0, 4), seed=st.integers(0, 3))
@runs(max_examples=8, deadline=None)
def test_an_epoch_has_every_conversation_once(data, epoch, seed):
    split = data.split("train")
    source = batches(split, seed)
    batch = source.sequences([range(epoch * source.rows, (epoch + 1) * source.rows)])
    assert batch.tokens.shape == batch.targets.shape == batch.document_ids.shape == (source.rows, SEQ_LEN)
    assert batch.target_tokens == split.target_tokens
    found = []
    for tokens, targets, documents in zip(batch.tokens, batch.targets, batch.document_ids, strict=True):
        assert (np.diff(documents) >= 0).all() and documents[0] == 0
        for document in range(documents[-1] + 1):
            here = documents == document
            if (targets[here] != IGNORE).any():
                found.append((tokens[here].tobytes(), targets[here].tobytes()))
            else:
                assert (tokens[here] == TOKENIZER.pad_id).all()
    expected = []
    for number in range(split.conversations):
        one = split.example(number)
        expected.append((one.ids[:-1].tobytes(), np.where(one.target[1:], one.ids[1:], IGNORE).tobytes()))
    assert sorted(found) == sorted(expected)


def test_the_order_is_the_same_for_any_number_of_ranks(data):
    source = batches(data.split("train"))
    windows = [range(3, 8), range(source.rows + 2, source.rows + 5)]
    whole = source.sequences(windows)
    for world in (1, 2, 4):
        shares = [source.sequences(windows, slice(rank, None, world)) for rank in range(world)]
        for rank, share in enumerate(shares):
            assert np.array_equal(share.tokens, whole.tokens[rank::world])
            assert np.array_equal(share.targets, whole.targets[rank::world])
            assert np.array_equal(share.document_ids, whole.document_ids[rank::world])
    one_by_one = [source.sequences([range(w, w + 1)]).tokens[0] for piece in windows for w in piece]
    assert np.array_equal(np.stack(one_by_one), whole.tokens)
    assert not np.array_equal(batches(data.split("train"), 1).sequences(windows).tokens, whole.tokens)


def alone(split):
    """Every conversation as a micro-batch of its own, without packing, mask or padding."""
    for number in range(split.conversations):
        one = split.example(number)
        targets = np.where(one.target[1:], one.ids[1:], IGNORE)
        yield MicroBatch(one.ids[None, :-1], targets[None])


def test_packed_loss_and_gradients_are_those_of_the_unpacked(data):
    split = data.split("valid")
    model = Llama(SHAPE).initialize(0)

    def measured(parts):
        model.zero_grad()
        total = 0.0
        for part in parts:
            on = part.to(torch.device("cpu"))
            loss = model.loss_sum(on.tokens, on.targets, on.document_ids)
            loss.backward()
            total += loss.item()
        return total, {name: one.grad.clone() for name, one in model.named_parameters()}

    source = batches(split)
    assert source.rows < split.conversations
    loss, gradients = measured([source.sequences([range(source.rows)])])
    expected, single = measured(alone(split))
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, gradient in gradients.items():
        assert torch.allclose(
            gradient, single[name], rtol=1e-5, atol=1e-5 * float(single[name].abs().max())
        ), name


def test_held_out_rows_measure_the_bits_per_byte_of_the_answers(data):
    split = data.split("valid")
    text = held_out(split, TOKENIZER, SEQ_LEN, 10**9)
    assert text.bytes == split.target_bytes
    answers = (text.targets != UNCOUNTED).sum()
    ends = sum(int((one.targets == TOKENIZER.token_id("<|im_end|>")).sum()) for one in alone(split))
    assert answers == split.target_tokens - ends and text.facts()["overlap"] == 0
    assert text.facts()["data_sha256"] == data.sha256
    assert sum(len(inputs) for inputs, _ in text.windows()) < split.tokens
    model = Llama(SHAPE).initialize(0)
    nats = 0.0
    for one in alone(split):
        targets = one.targets.copy()
        targets[np.isin(targets, list(TOKENIZER.special_ids))] = IGNORE
        nats += model.loss_sum(torch.from_numpy(one.tokens), torch.from_numpy(targets)).item()
    assert bits_per_byte(model, text, 2, Precision("fp32", "")) == pytest.approx(text.value(nats), rel=1e-5)
    windows = [model.loss_sum(*map(torch.from_numpy, (i[None], t[None]))).item() for i, t in text.windows()]
    assert sum(windows) == pytest.approx(nats, rel=1e-5) and len(windows) == split.conversations
    few = held_out(split, TOKENIZER, SEQ_LEN, 2 * SEQ_LEN)
    assert len(few.inputs) == 2


def test_nothing_held_out_gives_none(tmp_path):
    path = conversation_file(tmp_path / "a.jsonl", 5)
    data = prepare_conversations([path], tmp_path, CHAT, TOKENIZER, seq_len=SEQ_LEN, valid_fraction=0.0)
    assert held_out(data.split("valid"), TOKENIZER, SEQ_LEN, 1000) is None
