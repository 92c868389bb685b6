"""Bytes of each optimizer's state, and of the buffers that it updates with, by calculation. No torch here.

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

MUON_BATCH = 1 << 23
"""Numbers that Muon orthogonalises at once (`train.optim.muon.BATCH_ELEMENTS`)."""

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


def buffer_bytes(model: ModelConfig, optimizer: str, *, precision: str, ranks: int = 1) -> int:
    """What the optimizer keeps allocated for its updates: nothing but for Muon's Newton-Schulz.

    That holds two buffers for the largest batch of matrices of one shape, four for its Gram matrices, and
    with several ranks one for everybody's (`train.optim.newton_schulz`, `train.optim.muon`).
    """
    if optimizer != "muon":
        return 0
    largest = gram = 0
    for (m, n), count in _muon_shapes(model).items():
        batch = min(count, ranks * max(1, MUON_BATCH // (m * n)))
        mine = -(-batch // ranks)
        largest, gram = max(largest, mine * m * n), max(gram, mine * m * m)
    size = 2 if precision == "bf16" else FP32
    return size * (2 * largest + 4 * gram + (ranks * largest if ranks > 1 else 0))


def _muon_shapes(model: ModelConfig) -> dict[tuple[int, int], int]:
    """(smaller, larger side) -> how many: q, k and v, gate and up are orthogonalised each for itself."""
    width, inner = model.hidden_size, model.intermediate_size
    rows = [model.q_size, model.kv_size, model.kv_size, model.q_size, inner, inner, inner]
    shapes: dict[tuple[int, int], int] = {}
    for other in rows:
        shape = (min(other, width), max(other, width))
        shapes[shape] = shapes.get(shape, 0) + model.num_layers
    return shapes


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
