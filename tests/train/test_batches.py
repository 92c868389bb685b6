"""The order of the data, and micro-batches: which tokens, which targets, and masked documents."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from safetensors.numpy import load_file

from ptbr_slm.attention_mask import document_mask
from ptbr_slm.config import ModelConfig
from ptbr_slm.model import IGNORE, Llama
from ptbr_slm.train.batches import MicroBatch, TextBatches, WindowOrder, epoch_keys, permute, random_batch
from ptbr_slm.train.compile import compile_layers
from ptbr_slm.train.find_lr import find_lr
from ptbr_slm.train.parallel.parallelize import Parallel
from ptbr_slm.train.planning.activations import measured_saved_bytes
from ptbr_slm.train.planning.memory import saved_tensors
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.train.run import train
from ptbr_slm.train.step import autocast

SHAPE = ModelConfig(vocab_size=96, hidden_size=64, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=32,
                    intermediate_size=96, max_seq_len=64)  # fmt: skip
MASKED = {"data.document_mask": True}
GOLDEN = [6805, 5205, 5909, 1621, 661, 6993, 3793, 17]
"""First tokens of the windows 150 to 157 of 10,000 tokens, seed 0: never to change."""


def network(**settings) -> Llama:
    model = Llama(SHAPE).initialize(0).train()
    for name, value in settings.items():
        setattr(model, name, value)
    return model


@given(size=st.integers(1, 3000), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 1000))
@examples(max_examples=60, deadline=None)
def test_every_window_of_an_epoch_comes_exactly_once(size, seed, epoch):
    assert sorted(permute(np.arange(size), size, epoch_keys(seed, epoch))) == list(range(size))


@given(
    tokens=st.integers(2, 5000),
    seq_len=st.integers(1, 300),
    seed=st.integers(0, 99),
    cursor=st.integers(0, 10**6),
)
@examples(max_examples=100, deadline=None)
def test_windows_are_inside_the_text(tokens, seq_len, seed, cursor):
    if tokens <= seq_len:
        return
    starts = WindowOrder(tokens, seq_len, seed).starts(cursor, 17)
    assert starts.min() >= 0 and starts.max() + seq_len + 1 <= tokens


@given(cuts=st.lists(st.integers(1, 40), min_size=1, max_size=8))
@examples(max_examples=30, deadline=None)
def test_however_the_run_is_cut_it_sees_the_same_windows(cuts):
    order = WindowOrder(tokens=1000, seq_len=32, seed=7)
    pieces, cursor = [], 0
    for count in cuts:
        pieces.append(order.starts(cursor, count))
        cursor += count
    assert np.array_equal(np.concatenate(pieces), order.starts(0, cursor))


def test_epochs_and_seeds_differ_in_order_and_offset():
    order = WindowOrder(tokens=10_000, seq_len=64, seed=1)
    first, second = order.starts(0, order.windows), order.starts(order.windows, order.windows)
    other = WindowOrder(10_000, 64, seed=2).starts(0, order.windows)
    assert not np.array_equal(first, second) and not np.array_equal(first, other)
    assert len({int(a[0]) % 64 for a in (first, second, other)}) > 1
    assert len(set(first % 64)) == 1, "an epoch's windows share one offset, so none overlaps another"


def test_the_order_is_fixed_for_ever():
    """A resume after an upgrade must read the same windows: these numbers never change."""
    assert WindowOrder(10_000, 64, seed=0).starts(150, 8).tolist() == GOLDEN


def test_shuffle_leaves_no_visible_order():
    starts = WindowOrder(tokens=64_000, seq_len=32, seed=0).starts(0, 1900)
    correlation = np.corrcoef(np.arange(1900), starts)[0, 1]
    neighbours = np.mean(np.abs(np.diff(starts)) <= 32)
    assert abs(correlation) < 0.07 and neighbours < 0.01


def test_the_source_reads_the_windows_of_the_order_and_each_rank_its_share(prepared):
    split = prepared.split("train")
    source = TextBatches(split, seq_len=16, seed=3, document_mask=True)
    windows = [range(5, 9), range(12, 14)]
    starts = [*WindowOrder(split.tokens, 16, 3).starts(5, 4), *WindowOrder(split.tokens, 16, 3).starts(12, 2)]
    whole = source.sequences(windows)
    assert len(whole) == 6 and [len(part) for part in whole.split(4)] == [4, 2]
    for index, start in enumerate(map(int, starts)):
        text = split.read(start, start + 17)
        assert np.array_equal(whole.tokens[index], text[:-1])
        assert np.array_equal(whole.targets[index], text[1:])
    assert np.array_equal(whole.document_ids, split.document_ids(np.array(starts), 17)[:, :-1])
    mine = source.sequences(windows, slice(2, 5))
    assert np.array_equal(mine.tokens, whole.tokens[2:5])
    assert TextBatches(split, seq_len=16, seed=3).sequences(windows).document_ids is None


def test_a_masked_target_is_not_fed_to_the_model_and_counts_nowhere():
    batch = random_batch(96, 2, 8)
    targets = batch.targets.copy()
    targets[:, 4:] = IGNORE
    masked = dataclasses.replace(batch, targets=targets)
    assert batch.target_tokens == 16 and masked.target_tokens == 8
    there = masked.to(torch.device("cpu"))
    alone = batch[:]
    half = network().loss_sum(torch.from_numpy(alone.tokens[:, :4]), torch.from_numpy(alone.targets[:, :4]))
    assert network().loss_sum(there.tokens, there.targets).item() == pytest.approx(half.item(), rel=1e-6)


@pytest.mark.parametrize("checkpoint_every", [0, 1])
@pytest.mark.parametrize("loss", ["chunked", "plain"])
def test_packed_documents_give_the_loss_and_the_gradient_of_each_alone(loss, checkpoint_every):
    draw = np.random.default_rng(0)
    documents = [draw.integers(0, 96, size) for size in (7, 1, 13, 11)]
    packed = np.concatenate(documents)[None]  # (1, 32)
    ids = np.repeat(np.arange(4), [len(document) for document in documents])[None]
    targets = np.roll(packed, -1, axis=1)
    last = np.cumsum([len(document) for document in documents]) - 1
    targets[:, last] = IGNORE  # what comes after a document is another's

    together, alone = (network(checkpoint_every=checkpoint_every, loss=loss) for _ in range(2))
    whole = together.loss_sum(*map(torch.from_numpy, (packed, targets, ids)))
    parts = [
        alone.loss_sum(torch.from_numpy(document[None, :-1]), torch.from_numpy(document[None, 1:]))
        for document in documents
        if len(document) > 1
    ]
    assert whole.item() == pytest.approx(sum(part.item() for part in parts), rel=1e-5)
    whole.backward()
    torch.stack(parts).sum().backward()
    for (name, ours), theirs in zip(together.named_parameters(), alone.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-5), name


def test_one_document_is_as_no_mask_and_the_mask_is_causal():
    batch = random_batch(96, 2, 16)
    model = network()
    tokens, targets = map(torch.from_numpy, (batch.tokens, batch.targets))
    plain = model.loss_sum(tokens, targets).item()
    masked = model.loss_sum(tokens, targets, torch.zeros(2, 16, dtype=torch.int32)).item()
    assert masked == pytest.approx(plain, rel=1e-6)
    mask = document_mask(torch.tensor([[0, 0, 1]]), torch.float32)
    blocked = float("-inf")
    assert mask.tolist() == [[[[0, blocked, blocked], [0, 0, blocked], [blocked, blocked, 0]]]]


@pytest.mark.parametrize("every", [0, 1])
@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_the_planner_counts_the_mask_once_for_all_layers(name, every):
    model, cpu = network(checkpoint_every=every), torch.device("cpu")
    batch = random_batch(96, 2, 64, documents=3).to(cpu)

    def forward() -> torch.Tensor:
        with autocast(cpu, Precision(name, "")):
            return model.loss_sum(batch.tokens, batch.targets, batch.document_ids)

    predicted = saved_tensors(
        SHAPE,
        batch_size=2,
        seq_len=64,
        checkpoint_every=every,
        precision=name,
        device="cpu",
        document_mask=True,
    )
    assert measured_saved_bytes(model, forward) == pytest.approx(predicted, rel=0.02)


def test_a_run_with_the_mask_is_another_run_that_stops_and_resumes_bit_for_bit(
    settings, tmp_path, weights, recorder
):
    from listeners import StopAfter

    train(settings({"output": tmp_path / "plain"}))
    config = settings(MASKED)
    train(config)
    assert weights(config.output / "final") != weights(tmp_path / "plain" / "final")
    stopped = settings({**MASKED, "output": tmp_path / "stopped"})
    assert train(stopped, StopAfter(step=3)).step == 3
    train(stopped)
    assert weights(stopped.output / "final") == weights(config.output / "final")
    resolved = (config.output / "config.resolved.toml").read_text()
    assert '"data.document_mask" = true' in resolved


def test_the_mask_reaches_smaller_micro_batches_and_find_lr(settings, tmp_path):
    one = train(settings({**MASKED, "batch_size": 4, "grad_accum": 1, "output": tmp_path / "one"}))
    two = train(settings({**MASKED, "batch_size": 1, "grad_accum": 4, "output": tmp_path / "two"}))
    ours, theirs = (load_file(result.run / "final" / "model.safetensors") for result in (one, two))
    for name, weight in theirs.items():
        np.testing.assert_allclose(ours[name], weight, atol=2e-4, err_msg=name)
    found = [find_lr(settings({**values, "output": tmp_path}), steps=10) for values in ({}, MASKED)]
    assert found[0].points[0].loss != found[1].points[0].loss


def test_compile_compares_with_the_mask(recorder):
    masks: list[bool] = []

    def compiler(plain, **_):
        def call(block, x, cos, sin, mask):
            masks.append(mask is not None)
            return plain(block, x, cos, sin, mask)

        return call

    batch = random_batch(96, 2, 16, documents=3)
    assert compile_layers(Parallel(network()), batch, Precision("fp32", ""), recorder, compiler=compiler)
    assert masks and all(masks)


def test_documents_of_a_batch_go_with_its_sequences():
    batch = random_batch(96, 5, 8, documents=2)
    parts = batch.split(2)
    assert [len(part) for part in parts] == [2, 2, 1]
    assert np.array_equal(np.concatenate([part.document_ids for part in parts]), batch.document_ids)
    there = batch.to(torch.device("cpu")).without_targets()
    assert bool((there.targets == IGNORE).all()) and there.document_ids is not None
    assert isinstance(MicroBatch.of_windows(batch.tokens), MicroBatch)
