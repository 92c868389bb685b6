"""The loss of DPO, its rows, and what is measured of pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adapted_models import SHAPE, adapted
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ptbr_slm.model import Llama
from ptbr_slm.train.evaluate import sample_ids
from ptbr_slm.train.parallel.parallelize import Parallel
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.train.step import autocast, optimizer_step
from ptbr_slm.tune.examples import Example
from ptbr_slm.tune.preference import DPO, PairBatches
from ptbr_slm.tune.reference import measure_rows
from ptbr_slm.tune.watch import prompts_of, repeated_ngrams

CPU = torch.device("cpu")
FP32 = Precision("fp32", "")
OBJECTIVE = DPO(beta=0.3, nll_weight=0.2)


class RandomPairs:
    """Pairs of random ids, of unequal lengths, with a prompt in common."""

    def __init__(self, count: int, seed: int = 0, longest: int = 9) -> None:
        draw = np.random.default_rng(seed)
        self._pairs = []
        for _ in range(count):
            prompt = draw.integers(1, SHAPE.vocab_size, draw.integers(1, 5))
            self._pairs.append(tuple(self._example(draw, prompt, longest) for _ in range(2)))

    @staticmethod
    def _example(draw: np.random.Generator, prompt: np.ndarray, longest: int) -> Example:
        answer = draw.integers(1, SHAPE.vocab_size, draw.integers(1, longest))
        ids = np.concatenate([prompt, answer]).astype(np.int64)
        return Example(ids, np.arange(len(ids)) >= len(prompt))

    @property
    def lengths(self) -> np.ndarray:
        return np.array([[len(example.ids) for example in pair] for pair in self._pairs]).reshape(-1, 2)

    def pair(self, number: int) -> tuple[Example, Example]:
        return self._pairs[number]


def reference(count: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(-20, 2, (count, 2))


def batches(pairs: RandomPairs, seq_len: int = 48, objective: DPO = OBJECTIVE) -> PairBatches:
    count = len(pairs.lengths)
    return PairBatches(pairs, reference(count), objective, seq_len=seq_len, seed=1, pad_id=0)


def model(seed: int = 0) -> Llama:
    found = Llama(SHAPE).initialize(seed)
    with torch.no_grad():  # far from uniform
        for weight in found.parameters():
            weight.mul_(3 if weight.dim() > 1 else 1)
    return found


def plain_log_prob(network: Llama, example: Example) -> Tensor:
    """Of an answer, by itself, from whole logits."""
    ids = torch.from_numpy(example.ids)
    log_probs = F.log_softmax(network(ids[None, :-1])[0].double(), dim=-1)
    learnt = torch.from_numpy(example.target[1:])
    return log_probs.gather(-1, ids[1:, None])[learnt].sum()


def plain_loss(network: Llama, pairs: RandomPairs, numbers: list[int], objective: DPO = OBJECTIVE) -> Tensor:
    """The formula, pair by pair."""
    total = torch.zeros((), dtype=torch.float64)
    stored = reference(len(pairs.lengths))
    for number in numbers:
        chosen, rejected = pairs.pair(number)
        p_chosen, p_rejected = plain_log_prob(network, chosen), plain_log_prob(network, rejected)
        margin = (p_chosen - stored[number, 0]) - (p_rejected - stored[number, 1])
        total = total - F.logsigmoid(objective.beta * margin)
        total = total - objective.nll_weight * p_chosen / int(chosen.target.sum())
    return total


def gradients(network: Llama, loss: Tensor) -> list[Tensor]:
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    return list(torch.autograd.grad(loss, weights))


def worst(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference of a gradient, of its norm."""
    assert len(found) == len(wanted)
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("scaled", [False, True])
def test_loss_and_gradient_are_the_formula_s_in_fp64(scaled: bool) -> None:
    pairs, network = RandomPairs(11), model().double()
    source = batches(pairs)
    batch = source.batch(range(source.rows))
    assert source.rows > 1 and batch.divisor == 11
    if scaled:
        network.backward_scale = torch.ones((), dtype=torch.float64)
    there = batch.to(CPU)
    loss = there.loss_sum(network)
    wanted = plain_loss(network, pairs, list(range(11)))
    # The reference travels in fp32: 1e-7 of 20 nats.
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert worst(gradients(network, loss), gradients(network, wanted)) < 1e-6


def test_trained_rows_of_a_frozen_head_and_adapters_get_the_same_gradient() -> None:
    pairs, network = RandomPairs(5), adapted().double()
    source = batches(pairs)
    loss = source.batch(range(source.rows)).to(CPU).loss_sum(network)
    wanted = plain_loss(network, pairs, list(range(5)))
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert worst(gradients(network, loss), gradients(network, wanted)) < 1e-6


def test_neither_packing_nor_accumulation_nor_windows_change_a_step() -> None:
    """Rows of one pair or of many, in one micro-batch or in several."""
    pairs = RandomPairs(9)
    results, trained = [], []
    for seq_len, batch_size in ((26, 1), (48, 1), (64, 2), (64, 8)):
        source, network = batches(pairs, seq_len), model()
        whole = source.sequences([range(source.rows)])
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        step = optimizer_step(
            network, optimizer, whole.split(batch_size), precision=FP32, scaler=None, gradient_clip=0.0
        )
        results.append((step.loss, step.grad_norm, step.target_tokens))
        trained.append(torch.cat([weight.detach().flatten() for weight in network.parameters()]))
    assert all(result == pytest.approx(results[0], rel=1e-4) for result in results)
    assert all(torch.allclose(weights, trained[0], atol=1e-5) for weights in trained)
    assert results[0][2] == sum(example.targets for number in range(9) for example in pairs.pair(number))


def test_every_pair_is_in_an_epoch_once_and_the_order_is_a_function_of_the_window() -> None:
    source = batches(RandomPairs(30))
    seen = np.concatenate([source.pairs(row) for row in range(source.rows)])
    assert sorted(seen.tolist()) == list(range(30))
    whole = source.sequences([range(3, source.rows + 5)])
    part = source.sequences([range(3, 5), range(5, source.rows + 5)], slice(1, 6))
    assert np.array_equal(part.tokens, whole.tokens[1:6])
    assert np.array_equal(part.reference, whole.reference[1:6, : part.reference.shape[1]])


def test_a_batch_without_targets_has_a_gradient_of_zero() -> None:
    """What a rank computes while the others still have a micro-batch."""
    network, source = model(), batches(RandomPairs(4))
    loss = source.batch(range(source.rows)).to(CPU).without_targets().loss_sum(network)
    assert loss.item() == 0
    assert all(not bool(gradient.any()) for gradient in gradients(network, loss))


@pytest.mark.parametrize("known", [True, False])
def test_under_a_loss_scale_small_fp16_gradients_are_kept(known: bool) -> None:
    """The derivative by a log-probability, about 1e-4 here, is scaled before it is rounded."""
    objective, scale = DPO(beta=1e-3), 65_536.0
    source = batches(RandomPairs(8), objective=objective)
    there = source.batch(range(source.rows)).to(CPU)
    network = model()
    wanted = gradients(network, there.loss_sum(network) / 8)
    network.backward_scale = torch.tensor(scale / 8) if known else None
    with autocast(CPU, Precision("fp16", "")):
        loss = there.loss_sum(network)
    found = [gradient / scale for gradient in gradients(network, loss / 8 * scale)]
    assert worst(found, wanted) < 2e-2


def test_measured_log_probabilities_are_those_of_each_answer_alone() -> None:
    pairs, network = RandomPairs(7), model()
    source = batches(pairs)
    numbers, found = measure_rows(Parallel(network), source, range(source.rows), 2, FP32)
    assert sorted(numbers.tolist()) == list(range(7))
    for number, values in zip(numbers.tolist(), found, strict=True):
        alone = [plain_log_prob(network, example).item() for example in pairs.pair(number)]
        assert values.tolist() == pytest.approx(alone, rel=1e-5)
    assert network.training


def test_a_model_with_adapters_writes_what_the_merged_one_does() -> None:
    """The trained rows of the head too."""
    network = adapted()
    weights = network.to_hf_weights()
    merged = Llama(SHAPE).load_hf_weights(lambda name, shape: weights[name])
    for seed in range(3):
        assert sample_ids(network, [5, 9], 20, seed) == sample_ids(merged, [5, 9], 20, seed)


@given(st.lists(st.lists(st.integers(0, 3), max_size=30), max_size=4))
def test_repeated_4_grams_are_those_that_stood_there_before(texts: list[list[int]]) -> None:
    grams = [[tuple(ids[at : at + 4]) for at in range(len(ids) - 3)] for ids in texts]
    repeats = sum(gram in found[:at] for found in grams for at, gram in enumerate(found))
    total = sum(map(len, grams))
    assert repeated_ngrams(texts) == pytest.approx(repeats / total if total else 0.0)


def test_prompts_of_held_out_pairs_are_different_ones() -> None:
    pairs = RandomPairs(6)
    prompts, longest = prompts_of(pairs, 4)
    whole = [pairs.pair(number)[0].ids.tolist() for number in range(6)]
    assert 1 <= len(prompts) <= 4 and len({tuple(prompt) for prompt in prompts}) == len(prompts)
    assert all(any(ids[: len(prompt)] == prompt for ids in whole) for prompt in prompts)
    assert longest == max(e.targets for number in (0, 1, 3, 4) for e in pairs.pair(number))
    assert prompts_of(RandomPairs(0), 4) == ([], 0)
