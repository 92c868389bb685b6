"""Block quantisation: small errors, the kernel's own layout, and what each method promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ptbr_slm_export.graphs.projections import QuantizedProjections
from ptbr_slm_export.graphs.writer import GraphWriter
from ptbr_slm_export.llama import LlamaWeights
from ptbr_slm_export.quantization import gptq as gptq_module
from ptbr_slm_export.quantization.blocks import FARTHEST, LARGEST, dequantize
from ptbr_slm_export.quantization.gptq import gptq, output_error
from ptbr_slm_export.quantization.quantizer import Quantizer, quantize
from ptbr_slm_export.quantization.recipe import METHODS, Recipe, recipe_for
from ptbr_slm_export.quantization.rounding import NORM, THOROUGH, hqq, rtn, search

from ptbr_slm.config import ModelConfig


def relative_error(matrix: np.ndarray, bits: int, block: int) -> float:
    return float(np.linalg.norm(dequantize(quantize(matrix, bits, block)) - matrix) / np.linalg.norm(matrix))


@pytest.fixture(scope="module")
def gaussian() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((96, 256)).astype(np.float32)


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    """(512, 128) activations of a few directions, as a model's are, some of them far larger than others."""
    generator = np.random.default_rng(2)
    mixed = generator.standard_normal((512, 20)) @ generator.standard_normal((20, 128))
    return (mixed * np.geomspace(0.1, 10, 128) + 0.3 * generator.standard_normal((512, 128))).astype("f4")


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    """(rows, 64) at any scale: noise, a constant, one large weight among small ones, one sign, zeros."""
    rows = draw(st.integers(1, 5))
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    matrix = generator.standard_normal((rows, 64))
    kind = draw(st.sampled_from(["noise", "constant", "spike", "positive", "zeros"]))
    if kind == "constant":
        matrix[:] = draw(st.sampled_from([-1.0, 0.3]))
    if kind == "spike":
        matrix[:, 9] *= 1000
    if kind == "positive":
        matrix = np.abs(matrix) + 1
    if kind == "zeros":
        matrix[:, :32] = 0
    return (matrix * 10.0 ** draw(st.sampled_from([-42, -30, -4, 0, 4, 15]))).astype(np.float32)


def test_the_search_beats_the_usual_rule_on_gaussian_weights(gaussian):
    blocks = gaussian.reshape(-1, 32)
    peak = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)
    usual = np.clip(np.rint(blocks / (peak / -8)), -8, 7) * (peak / -8)  # Q4_0, and ORT's default
    usual_error = np.linalg.norm(usual - blocks) / np.linalg.norm(blocks)
    assert relative_error(gaussian, 4, 32) < 0.93 * usual_error
    assert relative_error(gaussian, 4, 64) < 1.03 * usual_error
    assert relative_error(gaussian, 8, 128) < 0.008


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("method", METHODS)
def test_blocks_of_zeros_of_one_value_of_one_sign_and_of_tiny_values_survive(bits, method):
    blocks = np.zeros((6, 32), dtype=np.float32)
    blocks[1] = 0.25
    blocks[2] = -3.0
    blocks[3, 7] = 100.0
    blocks[4] = np.linspace(1, 2, 32)
    blocks[5] = 1e-40  # subnormal: no overflow on the way
    restored = dequantize(quantize(blocks, bits, 32, method, np.eye(32, dtype=np.float32)))
    assert np.isfinite(restored).all()
    np.testing.assert_array_equal(restored[0], 0)
    np.testing.assert_allclose(restored[1:4], blocks[1:4], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(restored[4], blocks[4], atol=0.09)


@settings(max_examples=60, deadline=None)
@given(matrices(), st.sampled_from(METHODS), st.sampled_from([4, 8]), st.sampled_from([16, 32, 64]))
def test_every_method_keeps_shape_and_layout_and_stays_near_its_weights(matrix, method, bits, block):
    gram = np.diag(np.geomspace(0.01, 100, 64)).astype(np.float32)
    found = quantize(matrix, bits, block, method, gram)
    assert (found.bits, found.block, found.rows, found.columns) == (bits, block, len(matrix), 64)
    assert found.codes.dtype == np.uint8 and (found.zeros is None) == (bits == 8)
    error = np.linalg.norm((dequantize(found) - matrix).reshape(-1, block).astype(np.float64), axis=1)
    size = np.linalg.norm(matrix.reshape(-1, block).astype(np.float64), axis=1)
    assert (error <= (FARTHEST[bits] + 0.01) * size + 1e-35).all()  # of subnormal blocks nothing is asked


@settings(max_examples=40, deadline=None)
@given(matrices(), st.sampled_from([4, 8]), st.integers(0, 2**16))
def test_no_method_is_worse_than_plain_rounding_by_its_own_measure(matrix, bits, seed):
    blocks = matrix.reshape(-1, 32) / max(float(np.abs(matrix).max()), 1e-30)  # squares fit into float32
    cost = np.random.default_rng(seed).exponential(1, blocks.shape).astype(np.float32)
    plain = blocks - rtn(blocks, bits).values()

    def no_worse(ours: np.ndarray, theirs: np.ndarray) -> bool:
        return bool((ours <= theirs * (1 + 1e-4) + 1e-10).all())

    squares = (blocks - search(blocks, bits).values()) ** 2
    assert no_worse(squares.sum(1), (plain**2).sum(1))
    weighed = (blocks - search(blocks, bits, cost, THOROUGH).values()) ** 2 * cost
    assert no_worse(weighed.sum(1), (plain**2 * cost).sum(1))
    halves = np.abs(blocks - hqq(blocks, bits).values()) ** NORM
    assert no_worse(halves.sum(1), (np.abs(plain) ** NORM).sum(1))


@pytest.mark.parametrize("bits", [4, 8])
def test_gptq_errs_less_in_what_the_matrix_does_to_correlated_inputs(inputs, bits):
    weights = np.random.default_rng(3).standard_normal((96, 128)).astype(np.float32)
    gram = inputs.T @ inputs
    ours = output_error(weights, gptq(weights, bits, 32, gram), gram)
    plain = output_error(weights, rtn(weights.reshape(-1, 32), bits), gram)
    assert ours.sum() < 0.5 * plain.sum()
    outputs = inputs @ weights.T
    restored = inputs @ gptq(weights, bits, 32, gram).values().reshape(weights.shape).T
    np.testing.assert_allclose(((restored - outputs) ** 2).sum(0), ours, rtol=0.05)


def test_gptq_does_not_depend_on_where_a_column_or_a_block_stands(inputs, monkeypatch):
    """The strongest input comes first, wherever it is: the same blocks in another order, the same codes."""
    monkeypatch.setattr(gptq_module, "PASSES", 0)  # the descent goes from left to right
    generator = np.random.default_rng(5)
    weights = generator.standard_normal((40, 128)).astype(np.float32)
    gram = inputs.T @ inputs
    columns = generator.permuted(np.arange(128).reshape(4, 32), axis=1)[[2, 0, 3, 1]].ravel()
    found = gptq(weights, 4, 32, gram).values().reshape(weights.shape)
    moved = gptq(weights[:, columns], 4, 32, gram[np.ix_(columns, columns)]).values().reshape(weights.shape)
    np.testing.assert_allclose(moved, found[:, columns], rtol=0, atol=1e-6)


def test_the_descent_ends_where_no_code_of_its_own_could_move(inputs, monkeypatch):
    weights = np.random.default_rng(5).standard_normal((7, 128)).astype(np.float32)
    gram = gptq_module._damped(inputs.T @ inputs, gptq_module.DAMPING)
    monkeypatch.setattr(gptq_module, "_ROWS", 3)  # rows do not depend on each other
    errors = {}
    for passes in (0, 1, 50):
        monkeypatch.setattr(gptq_module, "PASSES", passes)
        found = gptq_module._minimised(weights, 4, 32, gram, lambda blocks, cost: search(blocks, 4, cost))
        errors[passes] = output_error(weights, found, gram)
    assert (errors[1] <= errors[0] * (1 + 1e-4)).all() and (errors[50] <= errors[1] * (1 + 1e-4)).all()
    assert errors[1].sum() < errors[0].sum()
    for row, column in np.ndindex(weights.shape):
        for step in (-1, 1):
            of_row = found.part(slice(4 * row, 4 * row + 4))
            codes = of_row.codes.copy()
            codes.flat[column] = (int(codes.flat[column]) + step) % 256  # 255 is no code
            if codes.flat[column] <= LARGEST[4]:
                now = output_error(weights[row : row + 1], replace(of_row, codes=codes), gram)
                assert now >= errors[50][row] * (1 - 1e-4)


def test_gptq_is_never_worse_than_the_weighed_search_even_where_inputs_are_independent():
    weights = np.random.default_rng(4).standard_normal((64, 64)).astype(np.float32)
    gram = np.diag(np.geomspace(0.1, 10, 64)).astype(np.float32)
    cost = np.broadcast_to(np.diag(gram), weights.shape).reshape(-1, 32)
    ours = output_error(weights, gptq(weights, 4, 32, gram), gram)
    searched = output_error(weights, search(weights.reshape(-1, 32), 4, cost, THOROUGH), gram)
    assert (ours <= searched * 1.001).mean() > 0.95  # but for rows that would have moved too far


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("columns", [256, 192, 160])
def test_the_kernel_multiplies_by_what_dequantize_says(bits, columns, method, tmp_path):
    # 256, 192, 160: an even and an odd number of blocks (zeros are packed in pairs), and each size of block
    generator = np.random.default_rng(1)
    matrix = generator.standard_normal((48, columns)).astype(np.float32) + 0.3
    writer = GraphWriter("product")
    x = writer.input("x", ir.DataType.FLOAT, ("rows", columns))
    quantizer = Quantizer(Recipe(bits=bits, block=128 if bits == 8 else 64, method=method))
    projections = QuantizedProjections(None, quantizer)  # type: ignore[arg-type]
    product = projections.dense(writer, x, "product", 48, columns, lambda: matrix)
    writer.output(product, "y", ir.DataType.FLOAT, ("rows", 48))
    ir.save(writer.model(), tmp_path / "m.onnx")
    given = generator.standard_normal((5, columns)).astype(np.float32)
    got = ort.InferenceSession(tmp_path / "m.onnx").run(None, {"x": given})[0]
    expected = given @ dequantize(quantizer.matrix("product", matrix)).T
    assert np.linalg.norm(got - expected) < 0.02 * np.linalg.norm(expected)  # int8 activations


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("best", [7, 64, 500])
def test_the_best_logits_of_an_int4_head_are_those_of_its_int8_rows_and_the_others_stay(tied, best, tmp_path):
    config = ModelConfig(
        vocab_size=300, hidden_size=64, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=64,
        max_seq_len=64, head_dim=32, tie_embeddings=tied,
    )  # fmt: skip
    generator = np.random.default_rng(2)
    table = generator.standard_normal((300, 64)).astype(np.float32)
    weights = LlamaWeights(config, lambda name, shape: table)
    x = generator.standard_normal((2, 3, 64)).astype(np.float32)  # (B, K, C)

    def logits(head_rescored: int) -> np.ndarray:
        quantizer = Quantizer(Recipe(bits=4, block=64, head_bits=4, head_rescored=head_rescored))
        projections, writer = QuantizedProjections(weights, quantizer), GraphWriter("head")
        hidden = writer.input("x", ir.DataType.FLOAT, ("batch", "wanted", 64))
        ids = writer.input("ids", ir.DataType.INT64, ("batch", "wanted"))
        writer.output(projections.embed(writer, ids), "embedded", ir.DataType.FLOAT, ("batch", "wanted", 64))
        writer.output(projections.head(writer, hidden), "y", ir.DataType.FLOAT, ("batch", "wanted", 300))
        ir.save(writer.model(), tmp_path / "m.onnx")
        feeds = {"x": x, "ids": np.zeros((2, 3), dtype=np.int64)}
        return ort.InferenceSession(tmp_path / "m.onnx").run(["y"], feeds)[0]

    coarse, found = logits(0), logits(best)
    exact = x @ dequantize(Quantizer(Recipe(bits=4, block=64)).matrix("embedding", table)).T
    best = min(best, 300)
    border = np.partition(coarse, -best, axis=-1)[..., -best, None]
    np.testing.assert_array_equal(found[coarse < border], coarse[coarse < border])
    np.testing.assert_allclose(found[coarse >= border], exact[coarse >= border], rtol=0, atol=1e-4)
    assert (coarse >= border).sum() == 6 * best


def test_a_recipe_says_what_does_not_exist():
    from ptbr_slm.errors import SlmError

    for attempt in (
        lambda: recipe_for("fp32", "gptq"),
        lambda: recipe_for("fp16", head="int4"),
        lambda: recipe_for("int4", head="int3"),
        lambda: recipe_for("int8", head_rescored=64),
        lambda: recipe_for("int4", "awq"),
        lambda: recipe_for("int4", block=48),
        lambda: recipe_for("int8", head_bits=3),
        lambda: recipe_for("int4", mixed_extra=2.0),
    ):
        with pytest.raises(SlmError) as caught:
            attempt()
        assert caught.value.code == "E_USAGE"
    assert recipe_for("fp32") is None
