"""Which matrices lose too much to rounding, measured on each model.

`choose_mixed`: those that int4 hurts most; the model reads a text with one of them rounded at a time.
llama.cpp's Q4_K_M keeps v and ffn_down of some layers in more bits by a fixed rule.

`outlier_matrices`: those whose inputs int8 cannot hold, as a channel far larger than the others costs its
block precision. Models trained for long have such channels (Dettmers et al., 2022, arXiv:2208.07339). On a
CPU MatMulNBits rounds the activations of each block to int8; where that moves a product too far, it is
computed in fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ptbr_slm.config import ModelConfig
from ptbr_slm_export.llama import PARTS, Floats, Ids, LlamaWeights
from ptbr_slm_export.quantization.activations import Activations

TOKENS = 512
"""Read for each matrix. The change is paired token by token, so a few hundred tell matrices apart."""
OUTLIER_TOKENS = 64
"""Read for outliers: such channels are large in every text."""
LARGEST_ERROR = 0.06
"""Relative error of a product, of a position, that is left to int8. Measured: 0.013 at 85m, 0.041 on
SmolLM2-135M, whose bits per byte int8 activations leave as they are."""


def choose_mixed(
    config: ModelConfig,
    weights: LlamaWeights,
    windows: Sequence[Ids],
    rounded: Callable[[str, Floats], Floats],
    extra: float,
    on_step: Callable[[str], None] = lambda step: None,
) -> tuple[str, ...]:
    """Names of the matrices to keep in int8, in the graph's order.

    rounded: a matrix's name and values -> the values that int4 would leave. extra: bytes that may be added
    to the layers' matrices, as a part of what they take in int4; int8 takes twice as many. Those with the
    largest change per byte come first.
    """
    changes = sensitivities(config, weights, windows, rounded, on_step)
    budget = extra * sum(size for _, size in changes.values())
    chosen = []
    for name, (change, size) in sorted(changes.items(), key=lambda item: -item[1][0] / item[1][1]):
        if change > 0 and size <= budget:
            chosen.append(name)
            budget -= size
    return tuple(name for name in changes if name in chosen)


def sensitivities(
    config: ModelConfig,
    weights: LlamaWeights,
    windows: Sequence[Ids],
    rounded: Callable[[str, Floats], Floats],
    on_step: Callable[[str], None] = lambda step: None,
) -> dict[str, tuple[float, int]]:
    """Name -> (nats that a token's prediction moves by: KL(exact || rounded), weights of the matrix)."""
    read = tuple(_first(windows, TOKENS))
    exact = Activations(config, weights, read).fork(weights)
    states = [exact.fork(weights)]
    for _ in range(config.num_layers):
        exact.advance()
        states.append(exact.fork(weights))
    target = [log_softmax(rows) for rows in exact.logits()]
    result = {}
    for layer in range(config.num_layers):
        on_step(f"medindo a sensibilidade da camada {layer + 1} de {config.num_layers}")
        for part in PARTS:
            name, matrix = f"layers.{layer}.{part}", weights.matrix(layer, part)
            changed = _OneReplaced(weights, part, layer, rounded(name, matrix))
            found = [log_softmax(rows) for rows in states[layer].fork(changed).logits()]
            nats = sum(divergence(a, b) for a, b in zip(target, found, strict=True))
            result[name] = nats / exact.tokens, matrix.size
    return result


class _OneReplaced(LlamaWeights):
    """The weights of a model, but for one matrix."""

    def __init__(self, weights: LlamaWeights, part: str, layer: int, replacement: Floats) -> None:
        super().__init__(weights.config, weights.read)
        self._replaced, self._replacement = (layer, part), replacement

    def matrix(self, layer: int, part: str) -> Floats:
        """See `LlamaWeights.matrix`."""
        return self._replacement if (layer, part) == self._replaced else super().matrix(layer, part)


def _first(windows: Sequence[Ids], tokens: int) -> Iterator[Ids]:
    """Windows, or parts of them, up to a number of tokens."""
    for window in windows:
        if tokens <= 0:
            return
        yield window[:tokens]
        tokens -= len(window)


def divergence(exact: Floats, found: Floats) -> float:
    """KL(exact || found) in nats, summed over the rows; both are log probabilities (T, V)."""
    return float((np.exp(exact) * (exact - found)).sum())


def log_softmax(logits: Floats) -> Floats:
    """(T, V) -> (T, V)."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def outlier_matrices(
    config: ModelConfig, weights: LlamaWeights, window: Ids, block_of: Callable[[str, int], int]
) -> tuple[str, ...]:
    """Names in the graph of the matrices that int8 activations would spoil, in the graph's order.

    window: (T,) token ids. block_of: a matrix's name and columns -> its block.
    """
    reader = _RoundingErrors(config, weights, [window[:OUTLIER_TOKENS]], block_of)
    for _ in range(config.num_layers + 1):
        reader.advance()
    return tuple(name for name, error in reader.errors.items() if error > LARGEST_ERROR)


def round_activations(x: Floats, block: int) -> Floats:
    """x (T, columns) as MatMulNBits sees it on a CPU: int8, a scale for each block of a row."""
    blocks = x.reshape(len(x), -1, block)
    step = np.abs(blocks).max(axis=2, keepdims=True) / np.float32(127)
    codes = np.rint(np.divide(blocks, step, out=np.zeros_like(blocks), where=step > 0))
    rounded: Floats = (codes * step).reshape(x.shape)
    return rounded


class _RoundingErrors(Activations):
    """Measures how far rounded activations move each product, in place of Gram matrices."""

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
        return self.weights.matrix(int(layer), part)
