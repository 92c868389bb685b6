"""Bytes that a training step needs, by calculation: the planner behind `info` and `train --dry-run`.

Measured (tests/train/planning/test_memory.py), in fp32 and in bf16 under the CPU's autocast: the saved
tensors, with hooks (within 1 %), and the peak of forward plus backward in PyTorch's allocator (within 10 %;
2 % from 512 tokens on). Computed, not measured: everything on a GPU. The list of kept tensors is the same
there, but RMSNorm's fused CUDA kernel keeps no normalised copy; fp16 costs what bf16 does; attention is taken
to run in the memory-efficient kernel, which keeps nothing of size T * T; fragmentation is not counted.

The optimizer's state is counted tensor by tensor, because optimizers treat small and large tensors
differently. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.text import number
from ptbr_slm.train.planning.activations import FP32, PassMemory
from ptbr_slm.train.planning.parameters import Adapters, elements, muon_shapes, parameters

GIB = 1 << 30

T4_BYTES = int(14.56 * GIB)
"""What torch sees of a T4: the total capacity in its out-of-memory message (Zheng-Chong/CatVTON#133)."""
CUDA_CONTEXT_BYTES = int(0.56 * GIB)
"""CUDA context and library workspaces: of a T4's 14.56 GiB, 14.0 are left to plan with (assumed)."""

NCCL_CHANNEL_BYTES = (4 << 20) + 16 * 8 * 512 * 8 + 8 * 120 * 640 * 8
"""A receive buffer of NCCL for each of its three protocols: Simple's default NCCL_BUFFSIZE of 4 MiB; LL: 16
bytes a line, 8 lines a thread, 512 threads, 8 steps; LL128: 8 bytes an element, 120 a thread, 640 threads, 8
steps (src/include/device.h; NVIDIA/nccl#391). 9.2 MiB a channel."""
NCCL_BYTES = 4 * NCCL_CHANNEL_BYTES
"""Of two cards on one PCIe bus: a peer, and at most four channels (assumed; NCCL says how many with
NCCL_DEBUG=INFO). Without peer access, as between Kaggle's T4s, the buffers lie in the host's shared memory
(src/transport/shm.cc), and this is what is to spare."""

_HALF = {"fp32": 4, "fp16": 2, "bf16": 2}
"""Precision -> bytes of a matrix product's inputs under autocast."""
_PARALLEL = {"ddp": 0, "fsdp": 1}
_LOSSES = {"chunked": 0, "plain": 1}


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """Bytes on the device at the peak instant of a training step; the byte fields add up to `total`.

    Of a step from the second micro-batch of the second step on, when gradients and optimizer state exist.
    """

    weights: int
    """fp32 master weights, frozen ones and adapters too; a tied embedding counts once."""
    autocast_cache: int
    """Half-precision copies of matrices alive at that instant, those of recomputed layers not; 0 in fp32."""
    gradients: int
    """fp32, as large as the weights that are trained; kept between the micro-batches of a step."""
    optimizer: int
    """The optimizer's state, and the buffers that Muon updates with."""
    activations: int
    """What autograd holds of the layers, the recomputed ones included."""
    logits: int
    """The loss: logits and their gradients; of one chunk where it is chunked."""
    workspace: int
    """Gradients on their way: of a layer's insides, of the head until it is added to the embedding's."""
    communication: int
    """What FSDP gathers around the layer at work. DDP adds nothing: its gradients are its buckets."""
    context: int
    """CUDA context, with several ranks NCCL's buffers too; 0 on the CPU."""
    peak: str
    """Which instant it is: `loss`, `layers` or `embedding`."""

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        held = self.weights + self.autocast_cache + self.gradients + self.optimizer
        return held + self.activations + self.logits + self.workspace + self.communication + self.context


def gib(size: float) -> str:
    """Bytes as GiB with one decimal, as messages show them."""
    return number(size / GIB, 1)


def fits_t4(estimate: MemoryEstimate) -> bool:
    """Whether it fits one T4: 14.0 GiB besides the CUDA context."""
    return estimate.total <= T4_BYTES


def estimate(
    model: ModelConfig,
    *,
    batch_size: int,
    seq_len: int,
    checkpoint_every: int,
    precision: str,
    optimizer: str = "adamw",
    device: str = "cuda",
    ranks: int = 1,
    parallel: str = "ddp",
    loss: str = "chunked",
    document_mask: bool = False,
    adapters: Adapters | None = None,
) -> MemoryEstimate:
    """Memory on one device of a training step with micro-batches of `batch_size` x `seq_len` tokens.

    checkpoint_every: 0 keeps all activations; k recomputes layers 0, k, 2k, ... (`Llama.checkpoint_every`).
    precision: fp32, or fp16/bf16 for autocast over fp32 weights. optimizer: adamw, adamw8bit or muon.
    device: `cuda` or `cpu`. ranks, parallel: how many devices share the work, `ddp` (each holds all) or
    `fsdp` (each holds its share of weights, gradients and state). loss: `chunked` or `plain`
    (`ptbr_slm.loss`). document_mask: as `data.document_mask`. adapters: what is trained where the weights
    themselves are frozen. Raises E_CONFIG for any other value.
    """
    _check(batch_size=batch_size, seq_len=seq_len, checkpoint_every=checkpoint_every, ranks=ranks)
    half = _choice("precision", precision, _HALF)
    _choice("optimizer", optimizer, dict.fromkeys(STATES, 0))
    shards = ranks if _choice("parallel", parallel, _PARALLEL) else 1
    chunked = _choice("loss", loss, _LOSSES) == 0
    step = PassMemory(
        model, batch_size, seq_len, checkpoint_every, half, device, chunked, document_mask, adapters
    )
    added = 0 if adapters is None else adapters.count(model)
    trained = model.num_parameters if adapters is None else added
    worst = max(step.instants(), key=lambda instant: instant.total)
    buffers = buffer_bytes(model, optimizer, precision=precision, ranks=ranks)
    return MemoryEstimate(
        weights=-(-FP32 * (model.num_parameters + added) // shards),
        autocast_cache=worst.copies,
        gradients=-(-FP32 * trained // shards),
        optimizer=-(-state_bytes(model, optimizer, adapters) // shards) + buffers,
        activations=worst.activations,
        logits=worst.logits,
        workspace=worst.workspace,
        communication=_gathered(model) if shards > 1 else 0,
        context=(CUDA_CONTEXT_BYTES + (NCCL_BYTES if ranks > 1 else 0)) if device == "cuda" else 0,
        peak=worst.name,
    )


def saved_tensors(
    model: ModelConfig,
    *,
    batch_size: int,
    seq_len: int,
    checkpoint_every: int,
    precision: str,
    device: str,
    loss: str = "chunked",
    document_mask: bool = False,
    adapters: Adapters | None = None,
) -> int:
    """Bytes that autograd holds once the loss is known, weights left out: what saved-tensor hooks count.

    Of the chunked loss without the gradients that it may have formed, which hooks do not see.
    """
    half, chunked = _choice("precision", precision, _HALF), _choice("loss", loss, _LOSSES) == 0
    step = PassMemory(
        model, batch_size, seq_len, checkpoint_every, half, device, chunked, document_mask, adapters
    )
    return step.saved()


def _gathered(model: ModelConfig) -> int:
    """What FSDP2 holds whole, in fp32: the layer at work, the one fetched ahead, a layer's gradient on its
    way to the shards, and the root group (embedding, head, last norm), whole from forward to backward.
    """
    root = model.num_parameters - model.num_layers * model.layer_parameters
    return FP32 * (3 * model.layer_parameters + root)


def _check(**values: int) -> None:
    for name, value in values.items():
        least = 0 if name == "checkpoint_every" else 1
        if value < least:
            flag = "--checkpointing" if name == "checkpoint_every" else f"--{name.replace('_', '-')}"
            raise SlmError(
                "E_CONFIG",
                f"{name} deve ser um inteiro a partir de {least}, e não {value}.",
                where=flag,
                hint=f"Corrija com {flag}.",
            )


def _choice(name: str, value: str, table: dict[str, int]) -> int:
    if value not in table:
        raise SlmError(
            "E_CONFIG",
            f"{name} deve ser {' ou '.join(table)}, e não {value!r}.",
            where=f"--{name}",
            hint=f"Use --{name} {next(iter(table))}.",
        )
    return table[value]


EIGHT_BIT_FROM = 4096
"""Elements from which bitsandbytes keeps a tensor's moments in 8 bits (its `min_8bit_size`)."""
EIGHT_BIT_BLOCK = 256
"""Elements that share one fp32 scale in bitsandbytes' block-wise 8-bit moments."""

MUON_BATCH = 1 << 23
"""Numbers that Muon orthogonalises at once (`train.optim.muon.BATCH_ELEMENTS`)."""


def state_bytes(model: ModelConfig, optimizer: str, adapters: Adapters | None = None) -> int:
    """The state that `optimizer` (a key of `STATES`) keeps between steps, of what is trained."""
    state = STATES[optimizer]
    trained = parameters(model) if adapters is None else adapters.parameters(model)
    return sum(state(kind, elements(shape)) for kind, shape in trained)


def buffer_bytes(model: ModelConfig, optimizer: str, *, precision: str, ranks: int = 1) -> int:
    """What the optimizer keeps allocated for its updates: nothing but for Muon's Newton-Schulz.

    That holds two buffers for the largest batch of matrices of one shape, four for its Gram matrices, and
    with several ranks one for everybody's (`train.optim.muon`).
    """
    if optimizer != "muon":
        return 0
    largest = gram = 0
    for (m, n), count in muon_shapes(model).items():
        batch = min(count, ranks * max(1, MUON_BATCH // (m * n)))
        mine = -(-batch // ranks)
        largest, gram = max(largest, mine * m * n), max(gram, mine * m * m)
    size = FP32 if precision == "fp32" else 2
    return size * (2 * largest + 4 * gram + (ranks * largest if ranks > 1 else 0))


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
