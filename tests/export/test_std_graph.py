"""The `std` graph answers as the `gqa` graph does, whatever the shape and the course of the calls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ptbr_slm_export.graphs.gqa import build_gqa_graph
from ptbr_slm_export.graphs.projections import FloatProjections, StandardProjections
from ptbr_slm_export.graphs.std import build_std_graph
from ptbr_slm_export.llama import LlamaWeights

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError

CLOSE = {"rtol": 0, "atol": 1e-4}
SHAPE = ModelConfig(
    vocab_size=97,
    hidden_size=64,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    intermediate_size=96,
    max_seq_len=80,
)
MODELS = {
    "tied": SHAPE,
    "untied": replace(SHAPE, tie_embeddings=False),
    "qk_norm": replace(SHAPE, qk_norm=True),
    "every head its own keys": replace(SHAPE, num_kv_heads=4),
    "one key head": replace(SHAPE, num_kv_heads=1, num_layers=1, rope_theta=500_000.0),
}


class RandomWeights:
    """Any weight asked for, drawn once; lively enough that the next token is rarely a close call."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._made: dict[str, np.ndarray] = {}

    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in self._made:
            noise = self._rng.normal(size=shape, scale=0.2)
            self._made[name] = (noise + (len(shape) == 1)).astype(np.float32)
        return self._made[name]


def open_session(model: ir.Model) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)


class Graph:
    """One graph with its caches: appends tokens to rows, gives the logits after each of them."""

    def __init__(self, config: ModelConfig, model: ir.Model, rows: int, element=np.float32) -> None:
        self.session = open_session(model)
        shape = (rows, config.num_kv_heads, config.max_seq_len, config.head_dim)
        self.caches = {
            f"past_key_values.{layer}.{part}": np.full(shape, self.unwritten, dtype=element)
            for layer in range(config.num_layers)
            for part in ("key", "value")
        }
        self.lengths = np.zeros(rows, dtype=np.int64)

    def append(self, ids: np.ndarray, rows: slice, counts: np.ndarray | None = None) -> np.ndarray:
        """ids (B, S) for these rows, of which counts (B,) are real; (B, S, V) logits."""
        every = np.tile(np.arange(ids.shape[1]), (len(ids), 1))
        past = {name: cache[rows] for name, cache in self.caches.items()}
        feeds = {"input_ids": ids, "logits_index": every, **self.places(ids.shape[1], rows), **past}
        names = ["logits", *(name.replace("past_key_values", "present") for name in self.caches)]
        logits, *present = self.session.run(names, feeds)
        for cache, new in zip(self.caches.values(), present, strict=True):
            cache[rows] = new
        self.lengths[rows] += ids.shape[1] if counts is None else counts
        return logits


class Gqa(Graph):
    unwritten = np.nan

    def places(self, new: int, rows: slice) -> dict[str, np.ndarray]:
        totals = (self.lengths[rows] + new).astype(np.int32)
        return {"seqlens_k": totals - 1, "total_sequence_length": np.array(totals.max())}


class Std(Graph):
    unwritten = 1e4  # anything finite

    def places(self, new: int, rows: slice) -> dict[str, np.ndarray]:
        first = self.lengths[rows]
        return {"write_indices": first, "position_ids": first[:, None] + np.arange(new)}


def both(config: ModelConfig, rows: int, *, fused: bool = False, seed: int = 1) -> tuple[Gqa, Std]:
    weights = LlamaWeights(config, RandomWeights(seed).read)
    gqa = build_gqa_graph(config, weights, FloatProjections(weights))
    std = build_std_graph(config, weights, StandardProjections(weights), fused=fused)
    return Gqa(config, gqa, rows), Std(config, std, rows)


def tokens(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, SHAPE.vocab_size, shape)


ALONE, PAIR = slice(0, 1), slice(0, 2)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_a_prefill_and_its_chunks_give_the_gqa_logits_at_every_position(name, fused):
    gqa, std = both(MODELS[name], rows=2, fused=fused)
    ids = tokens(1, 60)
    expected = gqa.append(ids, ALONE)
    assert expected.std() > 0.5  # lively enough for the comparison to mean something
    np.testing.assert_allclose(std.append(ids, ALONE), expected, **CLOSE)
    second = slice(1, 2)
    chunks = [std.append(ids[:, a:b], second) for a, b in ((0, 7), (7, 8), (8, 41), (41, 60))]
    np.testing.assert_allclose(np.concatenate(chunks, axis=1), expected, **CLOSE)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_sixty_four_greedy_tokens_are_the_same(name, fused):
    gqa, std = both(MODELS[name], rows=1, fused=fused)
    texts = []
    for graph in (gqa, std):
        logits = graph.append(tokens(1, 9), ALONE)[0, -1]
        text = [int(logits.argmax())]
        while len(text) < 64:
            text.append(int(graph.append(np.array([text[-1:]]), ALONE)[0, 0].argmax()))
        texts.append(text)
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 3


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_ragged_rows_with_a_past_are_read_in_one_call_as_each_alone(name, fused):
    """GroupQueryAttention takes several tokens after a past in one row alone; this graph takes all rows."""
    config = MODELS[name]
    gqa, std = both(config, rows=4, fused=fused)
    rows = slice(0, 4)
    course = [(30, 4, 11, 1), (5, 17, 1, 9), (1, 1, 1, 1), (2, 12, 3, 8)]
    for step, counts in enumerate(course):
        ids = tokens(4, max(counts), seed=step)  # what lies beyond a row's count is padding
        together = std.append(ids, rows, np.array(counts))
        for row, count in enumerate(counts):
            expected = gqa.append(ids[row : row + 1, :count], slice(row, row + 1))
            np.testing.assert_allclose(together[row, :count], expected[0], **CLOSE)


def test_a_ragged_decode_equals_gqas_and_idle_slots_disturb_nobody():
    gqa, std = both(SHAPE, rows=3)
    prompts = (25, 3, 14)
    for row, length in enumerate(prompts):
        for graph in (gqa, std):
            graph.append(tokens(1, length, seed=row), slice(row, row + 1))
    rows = slice(0, 3)
    for step in range(4):
        ids = tokens(3, 1, seed=step)
        np.testing.assert_allclose(std.append(ids, rows), gqa.append(ids, rows), **CLOSE)
    for step in range(3):  # now the middle row idles: it is fed, but does not get longer
        ids = tokens(3, 1, seed=9 + step)
        logits = std.append(ids, rows, np.array([1, 0, 1]))
        for row in (0, 2):
            alone = gqa.append(ids[row : row + 1], slice(row, row + 1))
            np.testing.assert_allclose(logits[row], alone[0], **CLOSE)
    ids = tokens(1, 5, seed=99)  # and wakes up as if nothing had been
    middle = slice(1, 2)
    np.testing.assert_allclose(std.append(ids, middle), gqa.append(ids, middle), **CLOSE)


def test_the_last_place_of_the_context_can_be_filled():
    gqa, std = both(SHAPE, rows=1)
    ids = tokens(1, SHAPE.max_seq_len)
    expected = gqa.append(ids, ALONE)
    std.append(ids[:, :-1], ALONE)
    np.testing.assert_allclose(std.append(ids[:, -1:], ALONE), expected[:, -1:], **CLOSE)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_small_shape_and_any_course_gives_the_gqa_logits(data):
    draw = data.draw
    kv_heads = draw(st.integers(1, 3), label="kv_heads")
    config = ModelConfig(
        vocab_size=draw(st.integers(5, 60), label="vocab"),
        hidden_size=16 * draw(st.integers(1, 4), label="hidden/16"),
        num_layers=draw(st.integers(1, 3), label="layers"),
        num_heads=kv_heads * draw(st.integers(1, 3), label="groups"),
        num_kv_heads=kv_heads,
        head_dim=16 * draw(st.integers(1, 2), label="head_dim/16"),
        intermediate_size=draw(st.integers(3, 50), label="intermediate"),
        max_seq_len=draw(st.integers(12, 40), label="context"),
        tie_embeddings=draw(st.booleans(), label="tied"),
        qk_norm=draw(st.booleans(), label="qk_norm"),
    )
    fused = draw(st.booleans(), label="fused")
    gqa, std = both(config, rows=2, fused=fused, seed=draw(st.integers(0, 9), label="seed"))
    rng = np.random.default_rng(draw(st.integers(0, 9), label="ids"))
    for _ in range(draw(st.integers(1, 3), label="calls")):
        room = config.max_seq_len - std.lengths.max()
        if room < 1:
            break
        counts = np.array([draw(st.integers(1, room), label="count") for _ in range(2)])
        ids = rng.integers(0, config.vocab_size, (2, counts.max()))
        together = std.append(ids, PAIR, counts)
        for row, count in enumerate(counts):
            expected = gqa.append(ids[row : row + 1, :count], slice(row, row + 1))
            np.testing.assert_allclose(together[row, :count], expected[0], **CLOSE)


def test_only_the_wanted_positions_get_logits_in_any_order():
    _, std = both(SHAPE, rows=2)
    ids, wanted = tokens(2, 12), np.array([[11, 3, 3], [0, 7, 1]])
    every = std.append(ids, PAIR)
    clean = {name: np.zeros_like(cache) for name, cache in std.caches.items()}
    std.lengths[:] = 0
    places = std.places(12, PAIR)
    feeds = {"input_ids": ids, "logits_index": wanted, **places, **clean}
    some = std.session.run(["logits"], feeds)[0]
    np.testing.assert_allclose(some, np.take_along_axis(every, wanted[:, :, None], 1), **CLOSE)


def test_a_context_whose_whole_cache_would_be_too_large_is_refused_with_another_target():
    config = replace(SHAPE, max_seq_len=131_072)
    weights = LlamaWeights(config, RandomWeights(0).read)
    with pytest.raises(SlmError, match="131072 tokens") as error:
        build_std_graph(config, weights, StandardProjections(weights))
    assert error.value.code == "E_MODEL_INVALID" and "--target cuda" in (error.value.hint or "")


@pytest.mark.parametrize("fused", [False, True])
def test_in_fp16_the_answers_are_close_to_fp32s_also_after_a_past(fused):
    weights = LlamaWeights(SHAPE, RandomWeights(4).read)
    half = ir.DataType.FLOAT16
    model = build_std_graph(SHAPE, weights, StandardProjections(weights, half), dtype=half, fused=fused)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    std = Std(SHAPE, model, rows=2, element=np.float16)
    reference = Std(SHAPE, build_std_graph(SHAPE, weights, StandardProjections(weights)), rows=2)
    for step, length in enumerate((40, 1, 6)):
        ids = tokens(2, length, seed=step)
        a, b = std.append(ids, PAIR), reference.append(ids, PAIR)
        assert a.dtype == np.float32
        a, b = (x - x.mean(axis=-1, keepdims=True) for x in (a, b))
        assert np.vdot(a, b) / np.sqrt(np.vdot(a, a) * np.vdot(b, b)) > 0.9999
