"""How long a step would take, by calculation: what the planner compares settings with. No torch here.

A micro-batch costs its FLOPs at the device's sustained rate, and, however few its tokens are, one passage
over weights and gradients and the launches of its kernels: that is why small micro-batches are slow.
Computed, not measured: `ptbr-slm bench train` puts measured figures beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ptbr_slm.config import ModelConfig
from ptbr_slm.train.planning.cards import T4, Card
from ptbr_slm.train.planning.flops import flops_per_token

LAUNCH_S = 5e-6
"""Of one kernel on a T4: assumed."""
LAYER_KERNELS = 45
"""Of a layer forward and backward, counted in `ptbr_slm.model.Block`; a third again where recomputed."""
CHUNK_KERNELS = 12
"""Of one chunk of the loss."""
LOGIT_BYTES = {"plain": 36, "chunked": 24}
"""Bytes read and written for each logit by a way to compute the loss, counted in `ptbr_slm.loss`."""
EXCHANGE = 4e9
"""Bytes/s between two T4s of Kaggle, by way of the host: assumed, as NCCL finds no peer access there."""
CORE_FLOPS, CPU_BANDWIDTH = 65e9, 30e9
"""Of one core (measured: docs/decisions/0009-kept-memory.md) and of a machine with AVX2 (assumed)."""


@dataclass(frozen=True, slots=True)
class Device:
    """What limits a step."""

    flops: float
    """FLOP/s that training sustains."""
    bandwidth: float
    """Bytes/s of memory."""
    launch_s: float
    """Seconds to start one kernel."""


def device_of(card: Card | None, precision: str) -> Device:
    """A GPU; one that is not in the list is taken for a T4, whose proportions are usual."""
    card = card or T4
    share = card.sustained / card.half
    flops = card.single * max(share, 0.5) if precision == "fp32" else card.sustained
    return Device(flops, card.bandwidth, LAUNCH_S)


def cpu(cores: int) -> Device:
    """A CPU, where nothing is launched."""
    return Device(CORE_FLOPS * cores, CPU_BANDWIDTH, 0.0)


def micro_batch_seconds(
    model: ModelConfig,
    device: Device,
    *,
    tokens: int,
    seq_len: int,
    checkpoint_every: int,
    precision: str,
    loss: str = "chunked",
    loss_chunks: int = 1,
) -> float:
    """Forward and backward of one micro-batch; the chunked loss forms its gradients in the forward pass."""
    work = flops_per_token(model, seq_len, checkpoint_every=checkpoint_every)
    recomputed = len(range(0, model.num_layers, checkpoint_every)) if checkpoint_every else 0
    # A weight in half precision: cast (4 read, 2 written), read by two products, its gradient written (2),
    # cast (2 and 4) and added (8 and 4); recomputing casts and reads again. In fp32 there are no casts.
    once, again = (24, 4) if precision == "fp32" else (30, 8)
    bytes_moved = once * model.num_parameters + again * recomputed * model.layer_parameters
    bytes_moved += LOGIT_BYTES[loss] * tokens * model.vocab_size
    kernels = LAYER_KERNELS * (model.num_layers + recomputed / 3) + CHUNK_KERNELS * loss_chunks
    return tokens * work / device.flops + bytes_moved / device.bandwidth + kernels * device.launch_s


def step_seconds(
    model: ModelConfig, micro_batch: float, *, sequences: int, batch_size: int, ranks: int, parallel: str
) -> float:
    """All micro-batches of the rank that has most to do, and what the ranks send each other meanwhile.

    A part-filled micro-batch counts as its share of a full one. DDP sums fp32 gradients once a step, and a
    ring sends each number twice; FSDP sends weights, weights again and gradients in every micro-batch.
    The optimizer's update, the same for every setting, is left out.
    """
    count = -(-sequences // ranks) / batch_size
    sent = 4 * model.num_parameters * (ranks - 1) / ranks / EXCHANGE
    return count * micro_batch + (3 * count if parallel == "fsdp" else 2) * sent
