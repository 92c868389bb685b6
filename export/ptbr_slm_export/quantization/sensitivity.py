"""Which matrices int4 hurts most, measured: the model reads a text with one of them rounded at a time.

llama.cpp's Q4_K_M keeps v and ffn_down of some layers in more bits by a fixed rule; here each model is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ptbr_slm.config import ModelConfig
from ptbr_slm_export.graphs.weights import Floats, LlamaWeights
from ptbr_slm_export.quantization.activations import Activations

Ids = npt.NDArray[np.int64]
PARTS = ("qkv", "attention_out", "gate", "up", "down")
"""Matrices of a layer, by their names in the graph."""
TOKENS = 512
"""Read for each matrix. The change is paired token by token, so a few hundred tell matrices apart."""


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
    taken = tuple(_first(windows, TOKENS))
    exact = Activations(config, weights, taken).fork(weights)
    states = [exact.fork(weights)]
    for _ in range(config.num_layers):
        exact.advance()
        states.append(exact.fork(weights))
    target = [_log_softmax(rows) for rows in exact.logits()]
    result = {}
    for layer in range(config.num_layers):
        on_step(f"medindo a sensibilidade da camada {layer + 1} de {config.num_layers}")
        for part in PARTS:
            name, matrix = f"layers.{layer}.{part}", getattr(weights, part)(layer)
            changed = _WithOne(weights, part, layer, rounded(name, matrix))
            found = [_log_softmax(rows) for rows in states[layer].fork(changed).logits()]
            nats = sum(float((np.exp(a) * (a - b)).sum()) for a, b in zip(target, found, strict=True))
            result[name] = nats / exact.tokens, matrix.size
    return result


class _WithOne(LlamaWeights):
    """The weights of a model, but for one matrix."""

    def __init__(self, weights: LlamaWeights, part: str, layer: int, matrix: Floats) -> None:
        super().__init__(weights.config, weights.reader)
        read = getattr(weights, part)
        setattr(self, part, lambda wanted: matrix if wanted == layer else read(wanted))


def _first(windows: Sequence[Ids], tokens: int) -> Iterator[Ids]:
    """Windows, or parts of them, up to a number of tokens."""
    for window in windows:
        if tokens <= 0:
            return
        yield window[:tokens]
        tokens -= len(window)


def _log_softmax(logits: Floats) -> Floats:
    """(T, V) -> (T, V)."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
