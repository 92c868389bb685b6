"""Block quantisation: small errors, the kernel's own layout, no surprise at the edges."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from ptbr_slm_export.graphs.nodes import GraphWriter
from ptbr_slm_export.graphs.projections import QuantizedProjections
from ptbr_slm_export.quantization.blocks import dequantize
from ptbr_slm_export.quantization.quantizer import Quantizer, quantize
from ptbr_slm_export.quantization.recipe import RECIPES


def relative_error(matrix: np.ndarray, bits: int, block: int) -> float:
    return float(np.linalg.norm(dequantize(quantize(matrix, bits, block)) - matrix) / np.linalg.norm(matrix))


@pytest.fixture(scope="module")
def gaussian() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((96, 256)).astype(np.float32)


def test_the_search_beats_the_usual_rule_on_gaussian_weights(gaussian):
    blocks = gaussian.reshape(-1, 32)
    peak = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)
    usual = np.clip(np.rint(blocks / (peak / -8)), -8, 7) * (peak / -8)  # Q4_0, and ORT's default
    usual_error = np.linalg.norm(usual - blocks) / np.linalg.norm(blocks)
    assert relative_error(gaussian, 4, 32) < 0.93 * usual_error
    assert relative_error(gaussian, 4, 64) < 1.03 * usual_error
    assert relative_error(gaussian, 8, 128) < 0.008


@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_of_zeros_of_one_value_of_one_sign_and_of_tiny_values_survive(bits):
    blocks = np.zeros((6, 32), dtype=np.float32)
    blocks[1] = 0.25
    blocks[2] = -3.0
    blocks[3, 7] = 100.0
    blocks[4] = np.linspace(1, 2, 32)
    blocks[5] = 1e-40  # subnormal: no overflow on the way
    restored = dequantize(quantize(blocks, bits, 32))
    assert np.isfinite(restored).all()
    np.testing.assert_array_equal(restored[0], 0)
    np.testing.assert_allclose(restored[1:4], blocks[1:4], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(restored[4], blocks[4], atol=0.08)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    ("columns", "block"), [(256, {8: 128, 4: 64}), (192, {8: 64, 4: 64}), (160, {8: 32, 4: 32})]
)
def test_the_kernel_multiplies_by_what_dequantize_says(bits, columns, block, tmp_path):
    # 256, 192, 160: an even and an odd number of blocks (zeros are packed in pairs), and each size of block
    generator = np.random.default_rng(1)
    matrix = generator.standard_normal((48, columns)).astype(np.float32) + 0.3
    writer = GraphWriter("product")
    x = writer.input("x", ir.DataType.FLOAT, ("rows", columns))
    projections = QuantizedProjections(None, Quantizer(RECIPES[f"int{bits}"]))  # type: ignore[arg-type]
    product = projections.dense(writer, x, "product", 48, columns, lambda: matrix)
    writer.output(product, "y", ir.DataType.FLOAT, ("rows", 48))
    ir.save(writer.model(), tmp_path / "m.onnx")
    given = generator.standard_normal((5, columns)).astype(np.float32)
    got = ort.InferenceSession(tmp_path / "m.onnx").run(None, {"x": given})[0]
    expected = given @ dequantize(quantize(matrix, bits, block[bits])).T
    assert np.linalg.norm(got - expected) < 0.02 * np.linalg.norm(expected)  # int8 activations
