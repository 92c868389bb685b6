"""The parameters of a model, and which of them a run trains. No torch here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ptbr_slm.config import ModelConfig

Parameter = tuple[str, tuple[int, ...]]
"""A parameter's kind and its shape: `embedding`, `matrix` (of a layer), `head`, `adapter` or `norm`."""


def layer_matrices(model: ModelConfig) -> int:
    """Weights of one layer's matrices."""
    return sum(rows * columns for rows, columns in _matrices(model))


def parameters(model: ModelConfig) -> Iterator[Parameter]:
    """Every parameter of `ptbr_slm.model.Llama`, fused matrices as they lie in memory."""
    yield "embedding", (model.vocab_size, model.hidden_size)
    if not model.tie_embeddings:
        yield "head", (model.vocab_size, model.hidden_size)
    for _ in range(model.num_layers):
        for shape in _matrices(model):
            yield "matrix", shape
        yield "norm", (model.layer_parameters - layer_matrices(model),)
    yield "norm", (model.hidden_size,)


def _matrices(model: ModelConfig) -> list[tuple[int, int]]:
    """(outputs, inputs) of a layer's matrices in memory: q with k and v, o, gate with up, down."""
    width, inner = model.hidden_size, model.intermediate_size
    return [
        (model.q_size + 2 * model.kv_size, width),
        (width, model.q_size),
        (2 * inner, width),
        (width, inner),
    ]


def muon_shapes(model: ModelConfig) -> dict[tuple[int, int], int]:
    """(smaller, larger side) -> how many: q, k and v, gate and up are orthogonalised each for itself."""
    width, inner = model.hidden_size, model.intermediate_size
    rows = [model.q_size, model.kv_size, model.kv_size, model.q_size, inner, inner, inner]
    shapes: dict[tuple[int, int], int] = {}
    for other in rows:
        shape = (min(other, width), max(other, width))
        shapes[shape] = shapes.get(shape, 0) + model.num_layers
    return shapes


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapters:
    """What is trained beside frozen weights (`ptbr_slm.tune.lora`): a pair of matrices of low rank for each
    of a layer's seven, and rows of the embedding. Gradients and moments are those of these alone.
    """

    rank: int
    rows: int = 0
    """Trained rows of the embedding, and of a head that is not tied."""

    FUSED = (3, 1, 2, 1)
    """Matrices of Llama's in each of `_matrices`."""

    def low(self) -> int:
        """Numbers a token that the pairs of a layer have between A and B."""
        return self.rank * sum(self.FUSED)

    def parameters(self, model: ModelConfig) -> Iterator[Parameter]:
        """What is trained, as it lies in memory."""
        for _ in range(model.num_layers):
            for count, (outputs, inputs) in zip(self.FUSED, _matrices(model), strict=True):
                yield "adapter", (count * self.rank, inputs)
                yield "adapter", (outputs, self.rank)
        if self.rows:
            yield "embedding", (self.rows, model.hidden_size)

    def layer(self, model: ModelConfig) -> int:
        """Numbers that are trained in one layer."""
        return self.rank * sum(n * i + o for n, (o, i) in zip(self.FUSED, _matrices(model), strict=True))

    def count(self, model: ModelConfig) -> int:
        """Numbers that are trained."""
        return model.num_layers * self.layer(model) + self.rows * model.hidden_size


def elements(shape: tuple[int, ...]) -> int:
    """Numbers in a tensor of this shape."""
    return math.prod(shape)
