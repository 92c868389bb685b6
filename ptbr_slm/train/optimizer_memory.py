"""Bytes of each optimizer's state, and of the room that its update needs, by calculation. No torch here.

Counted tensor by tensor, because the optimizers treat small and large tensors differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ptbr_slm.config import ModelConfig

FP32 = 4

EIGHT_BIT_FROM = 4096
"""Elements from which bitsandbytes keeps a tensor's moments in 8 bits (its `min_8bit_size`)."""
EIGHT_BIT_BLOCK = 256
"""Elements that share one fp32 scale in bitsandbytes' block-wise 8-bit moments."""

Parameter = tuple[str, tuple[int, ...]]
"""A parameter's kind and its shape: `embedding`, `matrix` (of a layer), `head`, or `norm`."""


def parameters(model: ModelConfig) -> Iterator[Parameter]:
    """Every parameter of `ptbr_slm.model.Llama`, fused matrices as they lie in memory."""
    width, inner = model.hidden_size, model.intermediate_size
    yield "embedding", (model.vocab_size, width)
    if not model.tie_embeddings:
        yield "head", (model.vocab_size, width)
    for _ in range(model.num_layers):
        yield "matrix", (model.q_size + 2 * model.kv_size, width)
        yield "matrix", (width, model.q_size)
        yield "matrix", (2 * inner, width)
        yield "matrix", (width, inner)
        yield "norm", (model.layer_parameters - layer_matrices(model),)
    yield "norm", (width,)


def layer_matrices(model: ModelConfig) -> int:
    """Weights of one layer's matrices."""
    attention = model.hidden_size * (2 * model.q_size + 2 * model.kv_size)
    return attention + 3 * model.hidden_size * model.intermediate_size


def state_bytes(model: ModelConfig, optimizer: str) -> int:
    """The state that `optimizer` (a key of `STATES`) keeps between steps."""
    state = STATES[optimizer]
    return sum(state(kind, _count(shape)) for kind, shape in parameters(model))


def update_bytes(model: ModelConfig, optimizer: str) -> int:
    """What an update allocates on the way: nothing for the fused ones, Muon's orthogonalisation otherwise.

    Newton-Schulz on a matrix (m, n), m <= n, holds in fp32 the update, X and the next X, (m, n) each, and
    X @ X.T, its square and their combination, (m, m) each.
    """
    if optimizer != "muon":
        return 0
    shapes = [sorted(shape) for kind, shape in parameters(model) if kind == "matrix"]
    return max(FP32 * (3 * m * n + 3 * m * m) for m, n in shapes)


def _adamw(kind: str, count: int) -> int:
    return 2 * FP32 * count  # two fp32 moments


def _adamw8bit(kind: str, count: int) -> int:
    if count < EIGHT_BIT_FROM:
        return _adamw(kind, count)
    return 2 * (count + FP32 * -(-count // EIGHT_BIT_BLOCK))  # two moments of a byte, and their scales


def _muon(kind: str, count: int) -> int:
    return FP32 * count if kind == "matrix" else _adamw(kind, count)


STATES: dict[str, Callable[[str, int], int]] = {"adamw": _adamw, "adamw8bit": _adamw8bit, "muon": _muon}
"""Optimizer -> bytes of state of a parameter of this kind with so many elements."""


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
