"""A recipe at work: which bits, block and method each matrix of a model gets."""

from __future__ import annotations

from ptbr_slm_export.quantization.blocks import Floats, QuantizedMatrix, quantize
from ptbr_slm_export.quantization.recipe import BLOCK_SIZES, Recipe


class Quantizer:
    """Quantises the matrices of one model, told by their names in the graph."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def matrix(self, name: str, weights: Floats) -> QuantizedMatrix:
        """`weights` (rows, columns), by the recipe's choice for `name`."""
        bits, limit = self.recipe.choice(name)
        return quantize(weights, bits, block_for(weights.shape[1], limit))


def block_for(columns: int, limit: int) -> int:
    """The largest block of at most `limit` weights that divides a row of `columns`."""
    return max(size for size in BLOCK_SIZES if size <= limit and columns % size == 0)
