"""Matrices whose inputs int8 cannot hold: a channel far larger than the others costs its block precision.

Models trained for long have such channels (Dettmers et al., 2022, arXiv:2208.07339). On a CPU MatMulNBits
rounds the activations of each block to int8; where that moves a product too far, it is computed in fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ptbr_slm.config import ModelConfig
from ptbr_slm_export.graphs.weights import Floats, LlamaWeights
from ptbr_slm_export.quantization.activations import Activations, Ids

TOKENS = 64
"""Read: such channels are large in every text."""
LARGEST_ERROR = 0.06
"""Relative error of a product, of a position, that is left to int8. Measured: 0.013 at 85m, 0.041 on
SmolLM2-135M, whose bits per byte int8 activations leave as they are."""


def outlier_matrices(
    config: ModelConfig, weights: LlamaWeights, window: Ids, block_of: Callable[[str, int], int]
) -> tuple[str, ...]:
    """Names in the graph of the matrices that int8 activations would spoil, in the graph's order.

    window: (T,) token ids. block_of: a matrix's name and columns -> its block.
    """
    watcher = _Watcher(config, weights, [window[:TOKENS]], block_of)
    for _ in range(config.num_layers + 1):
        watcher.advance()
    return tuple(name for name, error in watcher.errors.items() if error > LARGEST_ERROR)


def round_activations(x: Floats, block: int) -> Floats:
    """x (T, columns) as MatMulNBits sees it on a CPU: int8, a scale for each block of a row."""
    blocks = x.reshape(len(x), -1, block)
    step = np.abs(blocks).max(axis=2, keepdims=True) / np.float32(127)
    codes = np.rint(np.divide(blocks, step, out=np.zeros_like(blocks), where=step > 0))
    rounded: Floats = (codes * step).reshape(x.shape)
    return rounded


class _Watcher(Activations):
    """Notes how far each product moves, in place of Gram matrices."""

    def __init__(
        self,
        config: ModelConfig,
        weights: LlamaWeights,
        windows: Sequence[Ids],
        block_of: Callable[[str, int], int],
    ) -> None:
        super().__init__(config, weights, windows, watching=False)
        self.errors: dict[str, float] = {}
        self._block_of = block_of

    def _note(self, name: str, x: Floats) -> None:
        for each in (name, name.replace("gate", "up")) if name.endswith("gate") else (name,):
            matrix = self._matrix(each)
            moved = round_activations(x, self._block_of(each, x.shape[1])) - x
            size = np.linalg.norm(x @ matrix.T, axis=1)
            error = np.linalg.norm(moved @ matrix.T, axis=1) / np.where(size > 0, size, 1)
            self.errors[each] = max(self.errors.get(each, 0.0), float(error.max()))

    def _matrix(self, name: str) -> Floats:
        if name == "head":
            return self.weights.embedding() if self.config.tie_embeddings else self.weights.head()
        _, layer, part = name.split(".")
        matrix: Floats = getattr(self.weights, part)(int(layer))
        return matrix
