"""The sampler that runs where the logits are: the same choice as NumPy's for the same number, or none."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.runtime.onnx.gpu.device_memory import DeviceArray, DeviceMemory
from ptbr_slm.runtime.onnx.gpu.device_sampling import DeviceSampler
from ptbr_slm.runtime.onnx.gpu.sampling_graph import NEAREST, drawing_graph, greedy_graph
from ptbr_slm.runtime.sampling.distribution import distribution
from ptbr_slm.runtime.sampling.draws import Draw
from ptbr_slm.runtime.sampling.selection import draw as numpy_draw
from ptbr_slm.runtime.types import SamplingParams

ROWS, WIDTH, VOCAB = 3, 2080, 2048
"""Three rows; 32 columns more than the tokenizer has tokens."""


@pytest.fixture(scope="module")
def sampler():
    return DeviceSampler(DeviceMemory("cpu", ["CPUExecutionProvider"]), WIDTH, VOCAB)


@pytest.fixture(scope="module")
def buffers():
    logits = DeviceArray((ROWS, 1, WIDTH), np.float32, "cpu")
    return logits, DeviceArray((ROWS, 1), np.int64, "cpu")


def chosen_by_numpy(logits, draw: Draw) -> tuple[int, float]:
    """The token, and how near the number lies to where the choice would be another."""
    scores = logits[:VOCAB].copy()
    if draw.temperature == 0:
        return int(scores.argmax()), 1.0
    params = SamplingParams(
        temperature=draw.temperature, top_k=draw.top_k, top_p=draw.top_p, min_p=draw.min_p
    )
    ids, weights = distribution(scores, params)
    index = numpy_draw(weights, draw.uniform)
    sums = np.cumsum(weights, dtype=np.float64) / weights.sum(dtype=np.float64)
    distance = float(np.abs(sums - draw.uniform).min())
    if draw.top_p < 1:  # ten equal tokens and a share of 0.9: the last bit decides between nine and ten
        options = dataclasses.replace(params, top_p=1.0, min_p=0.0)
        falling = -np.sort(-distribution(logits[:VOCAB].copy(), options)[1].astype(np.float64))
        distance = min(distance, float(np.abs(np.cumsum(falling) / falling.sum() - draw.top_p).min()))
    return (index if ids is None else int(ids[index])), distance


DRAWS = st.builds(
    Draw,
    temperature=st.sampled_from([0.0, 0.3, 0.8, 1.0, 1.5]),
    top_k=st.sampled_from([0, 1, 2, 40, NEAREST - 1]),
    top_p=st.sampled_from([0.1, 0.5, 0.9, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    uniform=st.floats(0, 1, exclude_max=True),
)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    spread=st.floats(0.1, 8),
    rounded=st.booleans(),
    draws=st.lists(DRAWS, min_size=ROWS, max_size=ROWS),
)
def test_the_device_and_numpy_choose_the_same_token_for_the_same_number(
    sampler, buffers, seed, spread, rounded, draws
):
    """Rounded logits tie, also at the border of top-k and of the nucleus."""
    scores = np.random.default_rng(seed).normal(size=(ROWS, 1, WIDTH)) * spread
    scores = (np.round(scores) if rounded else scores).astype(np.float32)
    buffers[0].upload(scores)
    tokens = sampler.choose(*buffers, draws)[:, 0]
    for row, draw in enumerate(draws):
        expected, distance = chosen_by_numpy(scores[row, 0], draw)
        if tokens[row] >= 0 and distance > 1e-7:
            assert tokens[row] == expected, draw
        if draw.temperature == 0:  # among other draws not where more tie than are looked at
            assert tokens[row] == expected or (tokens[row] == -1 and any(d.temperature for d in draws))
    np.testing.assert_array_equal(buffers[1].read()[:, 0], tokens)


def ties_in_another_order(graph: bytes, order: npt.NDArray[np.int64]) -> bytes:
    """The graph with its first TopK over columns in another order, which equal values then come in."""
    model = onnx.load_from_string(graph)
    model.graph.initializer.append(onnx.numpy_helper.from_array(order, name="columns"))
    at = next(i for i, node in enumerate(model.graph.node) if node.op_type == "TopK")
    top = model.graph.node[at]
    before = onnx.helper.make_node("Gather", ["scores", "columns"], ["shuffled"], axis=1)
    after = onnx.helper.make_node("Gather", ["columns", "places"], ["ids"])
    assert (top.input[0], top.output[1]) == ("scores", "ids")
    top.input[0], top.output[1] = "shuffled", "places"
    model.graph.node.insert(at + 1, after)
    model.graph.node.insert(at, before)
    return model.SerializeToString()


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    step=st.sampled_from([0.05, 0.25, 1.0]),
    draws=st.lists(DRAWS, min_size=ROWS, max_size=ROWS),
)
def test_the_choice_does_not_depend_on_the_order_in_which_equal_logits_come(seed, step, draws, tied):
    """CUDA's TopK promises none. Steps as those of fp16, where many logits are equal."""
    numbers = np.random.default_rng(seed)
    scores = np.round(numbers.normal(size=(ROWS + 1, 1, 600)) * 3 / step) * np.float32(step)
    scores = scores.astype(np.float32)
    found = []
    for sampler, logits, tokens in tied:
        logits.upload(scores)
        found.append(sampler.choose(logits, tokens, [Draw(1, 1, 1, 0, 0), *draws])[1:].tolist())
    assert found[0] == found[1] == found[2]


@pytest.fixture(scope="module")
def tied():
    """Samplers over 600 logits whose TopK sees them in three orders."""
    width = 600
    found = []
    for order in (np.arange(width), np.arange(width)[::-1], np.random.default_rng(1).permutation(width)):
        sampler = DeviceSampler(DeviceMemory("cpu", ["CPUExecutionProvider"]), width, width)
        graph = ties_in_another_order(drawing_graph(width, width), order.astype(np.int64).copy())
        sampler.__dict__["_drawing"] = sampler.memory.open(graph)
        rows = ROWS + 1
        logits = DeviceArray((rows, 1, width), np.float32, "cpu")
        found.append((sampler, logits, DeviceArray((rows, 1), np.int64, "cpu")))
    return found


def test_a_peaked_distribution_is_never_left_to_the_host(sampler, buffers):
    """As a trained model's: what is left to NumPy is the exception."""
    scores = (np.random.default_rng(5).normal(size=(ROWS, 1, WIDTH)) * 4).astype(np.float32)
    buffers[0].upload(scores)
    for draw in (Draw(0.8, 0, 0.95, 0, 0.7), Draw(1, 40, 1, 0, 0.2), Draw(1, 0, 1, 0.05, 0.99)):
        assert sampler.suits(draw)
        assert (sampler.choose(*buffers, [draw] * ROWS) >= 0).all()


def test_what_the_nearest_tokens_do_not_settle_is_left_to_the_host(sampler, buffers):
    buffers[0].upload(np.zeros((ROWS, 1, WIDTH), np.float32))  # all alike
    for draw in (Draw(1, 0, 0.95, 0, 0.5), Draw(1, 3, 1, 0, 0.5), Draw(1, 0, 1, 0.5, 0.5)):
        assert (sampler.choose(*buffers, [draw] * ROWS) == -1).all()
    assert not sampler.suits(Draw(1, 0, 1, 0, 0.5))  # all tokens, never sorted
    assert not sampler.suits(Draw(1, NEAREST, 1, 0, 0.5))
    assert sampler.suits(Draw(0, 0, 1, 0, 0))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("draw", [Draw(0, 0, 1, 0, 0), Draw(0.8, 40, 0.9, 0, 0.5)])
def test_a_logit_that_is_no_number_is_left_to_the_host_which_says_so(sampler, buffers, wrong, draw):
    scores = np.tile(-np.arange(WIDTH, dtype=np.float32), (ROWS, 1, 1))
    scores[1, 0, 7] = wrong
    buffers[0].upload(scores)
    assert (sampler.choose(*buffers, [draw] * ROWS)[:, 0] >= 0).tolist() == [True, False, True]


def test_a_small_vocabulary_needs_no_truncation():
    """Every token is looked at, so nothing can lie beyond."""
    small = DeviceSampler(DeviceMemory("cpu", ["CPUExecutionProvider"]), 96, 90)
    logits, tokens = DeviceArray((1, 1, 96), np.float32, "cpu"), DeviceArray((1, 1), np.int64, "cpu")
    scores = np.random.default_rng(2).normal(size=(1, 1, 96)).astype(np.float32)
    logits.upload(scores)
    for uniform in np.linspace(0.001, 0.999, 40):
        draw = Draw(1.2, 0, 1, 0, float(uniform))
        assert small.suits(draw)
        found = small.choose(logits, tokens, [draw])
        ids, weights = distribution(scores[0, 0, :90].copy(), SamplingParams(temperature=1.2, top_p=1.0))
        assert ids is None and found.tolist() == [[numpy_draw(weights, draw.uniform)]]


def test_the_graphs_are_valid_onnx():
    for graph in (greedy_graph(WIDTH, VOCAB), drawing_graph(WIDTH, VOCAB), drawing_graph(96, 90)):
        onnx.checker.check_model(onnx.load_from_string(graph), full_check=True)
