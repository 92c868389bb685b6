"""From a recipe to the quantised matrices of one model: bits, block and method of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm_export.llama import LlamaWeights
from ptbr_slm_export.quantization.activations import Activations
from ptbr_slm_export.quantization.blocks import Blocks, Floats, QuantizedMatrix, dequantize, joined, too_far
from ptbr_slm_export.quantization.calibration import built_in_calibration, calibration_text
from ptbr_slm_export.quantization.gptq import gptq
from ptbr_slm_export.quantization.recipe import BLOCK_SIZES, CALIBRATED, LOOKED_UP, Method, Recipe
from ptbr_slm_export.quantization.rounding import THOROUGH, hqq, rtn, search, symmetric
from ptbr_slm_export.quantization.sensitivity import choose_mixed, outlier_matrices

_AT_ONCE = 1 << 16
"""Weights searched at once: 256 KiB of float32 stays in the second-level cache."""


def make_quantizer(
    recipe: Recipe,
    model: ModelFolder,
    weights: LlamaWeights,
    calibration: Path | None,
    on_step: Callable[[str], None] = lambda step: None,
) -> tuple[Quantizer, str | None]:
    """The quantiser of a recipe, and the name of the text it was calibrated on, if it needs one.

    Its own `recipe` has `mixed` filled in where the one given leaves that to measurement. Raises E_USAGE for
    a calibration text that nothing would read, and what `calibration_text` raises.
    """
    measures = recipe.mixed_extra > 0 and not recipe.mixed and recipe.bits == 4
    if recipe.method not in CALIBRATED and not measures:
        if calibration is not None:
            raise SlmError(
                "E_USAGE",
                f"o método {recipe.method} não usa texto de calibração.",
                where="--calibration",
                hint=f"Tire --calibration, ou use --method {' ou '.join(sorted(CALIBRATED))}.",
            )
        recipe = _with_exact(recipe, weights, model.tokenizer, on_step)
        return Quantizer(recipe), None
    config = weights.config
    text = calibration_text(model.path, model.tokenizer, config.max_seq_len, calibration)

    def rounded(name: str, matrix: Floats) -> Floats:
        block = block_for(matrix.shape[1], recipe.block)
        return dequantize(quantize(matrix, recipe.bits, block))

    if measures:
        mixed = choose_mixed(config, weights, text.windows, rounded, recipe.mixed_extra, on_step)
        recipe = replace(recipe, mixed=mixed)
    recipe = _with_exact(recipe, weights, model.tokenizer, on_step)
    if recipe.method not in CALIBRATED:
        return Quantizer(recipe), text.name
    return Quantizer(recipe, Activations(config, weights, text.windows), on_step), text.name


class Quantizer:
    """Quantises the matrices of one model, told by their names in the graph, in the graph's order."""

    def __init__(
        self,
        recipe: Recipe,
        activations: Activations | None = None,
        on_step: Callable[[str], None] = lambda step: None,
    ) -> None:
        """activations: of the model on a calibration text; without, `kquant`, `gptq` weigh inputs alike."""
        self.recipe, self.activations, self.on_step = recipe, activations, on_step

    def matrix(self, name: str, weights: Floats) -> QuantizedMatrix:
        """`weights` (rows, columns), by the recipe's choice for `name`."""
        bits, limit = self.recipe.choice(name)
        gram = None
        if self.activations is not None and name not in LOOKED_UP:
            if name.endswith(".qkv"):
                self.on_step(f"calibrando a camada {int(name.split('.')[1]) + 1}")
            gram = self.activations.gram(name)
        block = block_for(weights.shape[1], limit)
        if bits == 4 and self.recipe.symmetric:
            return quantize_symmetric(weights, block, self.recipe.method, gram)
        return quantize(weights, bits, block, self.recipe.method, gram)


def quantize(
    weights: Floats, bits: int, block: int, method: Method = "search", gram: Floats | None = None
) -> QuantizedMatrix:
    """A (rows, columns) matrix in 8 or 4 bits; columns a multiple of `block`.

    gram: (columns, columns), the mean of x x^T over its inputs on a text; None where none was read.
    """
    rows, columns = weights.shape
    if method == "gptq" and gram is not None:
        return gptq(weights, bits, block, gram).pack(rows, bits)
    importance = np.ones(columns, dtype=np.float32) if gram is None else np.diag(gram)
    importance = importance.reshape(-1, block)  # (blocks of a row, block)
    step = max(1, _AT_ONCE // columns)
    parts = [
        _round(weights[start : start + step].reshape(-1, block), bits, method, importance)
        for start in range(0, rows, step)
    ]
    return joined(parts).pack(rows, bits)


def quantize_symmetric(weights: Floats, block: int, method: Method, gram: Floats | None) -> QuantizedMatrix:
    """As `quantize`, in 4 bits without zeros; every method but hqq."""
    if method == "gptq" and gram is not None:
        return gptq(weights, 4, block, gram, symmetric).pack(len(weights), 4, symmetric=True)
    importance = None if gram is None or method != "kquant" else np.diag(gram)
    step = max(1, _AT_ONCE // weights.shape[1])
    parts = []
    for start in range(0, len(weights), step):
        rows = weights[start : start + step]
        cost = None if importance is None else np.broadcast_to(importance, rows.shape).reshape(-1, block)
        parts.append(symmetric(rows.reshape(-1, block), cost, search=method != "rtn"))
    return joined(parts).pack(len(weights), 4, symmetric=True)


def _round(blocks: Floats, bits: int, method: Method, importance: Floats) -> Blocks:
    """Whole rows of a matrix as blocks (n, block); importance (blocks of a row, block)."""
    if method == "rtn":
        return rtn(blocks, bits)
    plain = search(blocks, bits)
    if method == "search":
        return plain
    if method == "hqq":
        found = hqq(blocks, bits)
    else:
        found = search(blocks, bits, _cost(blocks, importance), THOROUGH)
    return plain.where(too_far(blocks, found, bits), found)


def _cost(blocks: Floats, importance: Floats) -> Floats:
    """What an error of each weight costs, (n, block): by its input's power, and more for large weights.

    The second part is that of llama.cpp's and ORT's k-quants without an importance matrix.
    """
    power = np.tile(importance, (len(blocks) // len(importance), 1))
    spread = np.sqrt(np.mean(np.square(blocks), axis=1, keepdims=True))
    cost: Floats = power * (spread + np.abs(blocks))
    return cost


def block_for(columns: int, limit: int) -> int:
    """The largest block of at most `limit` weights that divides a row of `columns`."""
    return max(size for size in BLOCK_SIZES if size <= limit and columns % size == 0)


def _with_exact(
    recipe: Recipe,
    weights: LlamaWeights,
    tokenizer: Tokenizer,
    on_step: Callable[[str], None],
) -> Recipe:
    """The recipe with the matrices that int8 activations would spoil. A GPU's activations are fp16."""
    if recipe.symmetric or recipe.exact:
        return recipe
    on_step("procurando canais fora de escala")
    config = weights.config
    window = built_in_calibration(tokenizer, config.max_seq_len).windows[0]
    exact = outlier_matrices(
        config, weights, window, lambda name, columns: block_for(columns, recipe.choice(name)[1])
    )
    return replace(recipe, exact=exact)
