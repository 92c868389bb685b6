"""How fast a device trains: its data sheet, the time of a step by calculation, and the share of it in use.

The planner compares settings by `step_seconds`, which is computed, not measured: `ptbr-slm bench train` puts
measured figures beside it. A micro-batch costs its FLOPs at the device's sustained rate, and, however few its
tokens are, one pass over weights and gradients and the launches of its kernels.

MFU (PaLM, arXiv:2204.02311, B): FLOPs that the model needs, recomputation not counted, over the peak. The
data sheet's peak is out of reach where the power limit slows a card down (a T4 holds 20 to 24 of 65 TFLOP/s),
so a second figure divides by what a matrix product reaches on this very card today.

Importing this module does not import torch.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from ptbr_slm.config import ModelConfig
from ptbr_slm.system import bf16_units
from ptbr_slm.train.planning.parameters import Adapters, muon_shapes

if TYPE_CHECKING:
    import torch

    from ptbr_slm.train.planning.precision import Precision


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSheet:
    """The data sheet of a GPU, without sparsity. Products accumulate in fp32."""

    name: str
    half: float
    """FLOP/s of fp16 (and, from Ampere on, bf16) matrix products."""
    single: float
    """FLOP/s in fp32; PyTorch does not use TF32 unless asked to."""
    bandwidth: float
    """Bytes/s of the device's memory."""
    sustained: float
    """FLOP/s of half-precision training to plan with: assumed, not measured."""

    def nameplate(self, precision: str) -> float | None:
        """Peak FLOP/s in `fp32`, `fp16` or `bf16`; None where the card only emulates it."""
        if precision == "bf16" and self.name in ("T4", "P100", "V100", "RTX 2080 Ti"):
            return None
        return self.single if precision == "fp32" else self.half


def _sheet(
    name: str, half: float, single: float, bandwidth: float, sustained: float | None = None
) -> DataSheet:
    """Figures in TFLOP/s and GB/s, as data sheets give them."""
    assumed = 0.4 * half if sustained is None else sustained  # a share that tuned trainers reach on an A100
    return DataSheet(
        name=name, half=half * 1e12, single=single * 1e12, bandwidth=bandwidth * 1e9, sustained=assumed * 1e12
    )


T4 = _sheet("T4", 65, 8.1, 320, sustained=14)
"""Its 70 W hold fp16 products at 20-24 TFLOP/s, of which training reaches 55-75 % (assumed).

20.4: MakazhanAlpamys/Soup#967 on GitHub. 24: forums.developer.nvidia.com, topic 264462."""

_SHEETS: tuple[tuple[str, DataSheet], ...] = (
    (r"\bT4\b", T4),
    (r"\bP100\b", _sheet("P100", 18.7, 9.3, 732)),
    (r"\bV100\b", _sheet("V100", 112, 14, 900)),
    (r"\bA100\b.*\b80GB\b", _sheet("A100", 312, 19.5, 1935)),
    (r"\bA100\b", _sheet("A100", 312, 19.5, 1555)),
    (r"\bA10G\b", _sheet("A10G", 70, 31.5, 600)),
    (r"\bA10\b", _sheet("A10", 125, 31.2, 600)),
    (r"\bL4\b", _sheet("L4", 121, 30.3, 300)),
    (r"\bL40S\b", _sheet("L40S", 362, 91.6, 864)),
    (r"\bH100\b.*\bPCIe\b", _sheet("H100 PCIe", 756, 51, 2000)),
    (r"\bH100\b.*\bNVL\b", _sheet("H100 NVL", 835, 60, 3900)),
    (r"\bH100\b", _sheet("H100", 989, 67, 3350)),
    (r"\bH200\b", _sheet("H200", 989, 67, 4800)),
    (r"\bB200\b", _sheet("B200", 2250, 75, 8000)),
    (r"\bRTX 2080 Ti\b", _sheet("RTX 2080 Ti", 53.8, 13.4, 616)),
    (r"\bRTX 3060\b(?! Ti)", _sheet("RTX 3060", 25.5, 12.7, 360)),
    (r"\bRTX 3090\b(?! Ti)", _sheet("RTX 3090", 71, 35.6, 936)),
    (r"\bRTX 4090\b", _sheet("RTX 4090", 165.2, 82.6, 1008)),
)
"""Pattern of the driver's name -> data sheet (NVIDIA, dense; GeForce with fp32 accumulation)."""


def data_sheet(name: str) -> DataSheet | None:
    """The data sheet of a card by the driver's name, such as `Tesla T4`; None for one that is not listed."""
    return next((sheet for pattern, sheet in _SHEETS if re.search(pattern, name, re.IGNORECASE)), None)


def flops_per_token(
    model: ModelConfig, seq_len: int, *, checkpoint_every: int = 0, adapters: Adapters | None = None
) -> int:
    """Operations of one trained token: forward, twice as much backward, and the layers computed again.

    A product costs 2 a weight; causal attention reads half of seq_len on average, in scores and in mixing:
    2 * q_size * seq_len a layer. Norms, RoPE and softmax (below 1 %) are left out. adapters: frozen weights
    have no gradient of their own, a third of the work; the adapters' come to it.
    """
    matrices = 2 * (model.layer_parameters - 2 * model.hidden_size)
    attention = 2 * model.q_size * seq_len
    head = 2 * model.vocab_size * model.hidden_size
    recomputed = len(range(0, model.num_layers, checkpoint_every)) if checkpoint_every else 0
    if adapters is None:
        return 3 * (model.num_layers * (matrices + attention) + head) + recomputed * (matrices + attention)
    added = 2 * adapters.layer(model)
    layer = 2 * matrices + 3 * (attention + added)
    return model.num_layers * layer + 2 * head + recomputed * (matrices + attention + added)


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
CORE_BF16_FLOPS = {"AMX": 160e9, "AVX-512 BF16": 95e9}
"""Of one core with these units, small models (measured: docs/decisions/0126-bf16-on-a-cpu.md)."""


@dataclass(frozen=True, slots=True)
class DeviceSpeed:
    """What limits a step."""

    flops: float
    """FLOP/s that training sustains."""
    bandwidth: float
    """Bytes/s of memory."""
    launch_s: float
    """Seconds to start one kernel."""


def gpu_speed(card: DataSheet | None, precision: str) -> DeviceSpeed:
    """A GPU; one that is not in the list is taken for a T4, whose proportions are usual."""
    card = card or T4
    share = card.sustained / card.half
    flops = card.single * max(share, 0.5) if precision == "fp32" else card.sustained
    return DeviceSpeed(flops, card.bandwidth, LAUNCH_S)


def cpu_speed(cores: int, precision: str = "fp32") -> DeviceSpeed:
    """This machine's kind of CPU, where nothing is launched."""
    units = bf16_units() if precision == "bf16" else None
    return DeviceSpeed(cores * (CORE_BF16_FLOPS[units] if units else CORE_FLOPS), CPU_BANDWIDTH, 0.0)


def micro_batch_seconds(
    model: ModelConfig,
    device: DeviceSpeed,
    *,
    tokens: int,
    seq_len: int,
    checkpoint_every: int,
    precision: str,
    loss: str = "chunked",
    loss_chunks: int = 1,
    adapters: Adapters | None = None,
) -> float:
    """Forward and backward of one micro-batch; the chunked loss forms its gradients in the forward pass."""
    work = flops_per_token(model, seq_len, checkpoint_every=checkpoint_every, adapters=adapters)
    recomputed = len(range(0, model.num_layers, checkpoint_every)) if checkpoint_every else 0
    # A weight in half precision: cast (4 read, 2 written), read by two products, its gradient written (2),
    # cast (2 and 4) and added (8 and 4); recomputing casts and reads again. In fp32 there are no casts.
    once, again = (24, 4) if precision == "fp32" else (30, 8)
    if adapters is not None:  # no gradient to write and to add
        once = 8 if precision == "fp32" else 10
    bytes_moved = once * model.num_parameters + again * recomputed * model.layer_parameters
    bytes_moved += LOGIT_BYTES[loss] * tokens * model.vocab_size
    kernels = LAYER_KERNELS * (model.num_layers + recomputed / 3) + CHUNK_KERNELS * loss_chunks
    return tokens * work / device.flops + bytes_moved / device.bandwidth + kernels * device.launch_s


def step_seconds(
    model: ModelConfig,
    micro_batch: float,
    *,
    sequences: int,
    batch_size: int,
    ranks: int,
    parallel: str,
    adapters: Adapters | None = None,
) -> float:
    """All micro-batches of the rank that has most to do, and what the ranks send each other meanwhile.

    A part-filled micro-batch counts as its share of a full one. The optimizer's update, the same for every
    setting, is left out (`update_seconds`).
    """
    count = -(-sequences // ranks) / batch_size
    trained = model.num_parameters if adapters is None else adapters.count(model)
    return count * micro_batch + exchanged_bytes(trained, count, ranks, parallel) / EXCHANGE


def exchanged_bytes(trained: int, micro_batches: float, ranks: int, parallel: str) -> float:
    """What each rank sends in a step. DDP sums fp32 gradients once a step, and a ring sends each number
    twice; FSDP sends weights, weights again and gradients in every micro-batch.
    """
    rounds = 3 * micro_batches if parallel == "fsdp" else 2
    return rounds * 4 * trained * (ranks - 1) / ranks


UPDATE_BYTES = 28
"""Of a parameter in AdamW's update: weight, gradient and two moments read, all but the gradient written."""


def update_seconds(
    model: ModelConfig, device: DeviceSpeed, *, optimizer: str, precision: str, ranks: int
) -> float:
    """The optimizer's update. Muon's matrices are shared out among the ranks (`train.optim.muon`).

    precision: of the products, those of Newton-Schulz among them.
    """
    seconds = UPDATE_BYTES * model.num_parameters / device.bandwidth
    if optimizer != "muon":
        return seconds
    work = sum(count * newton_schulz_flops(m, n, precision) for (m, n), count in muon_shapes(model).items())
    return seconds + work / ranks / device.flops


NEWTON_SCHULZ = 5
"""Iterations of Muon's."""


def newton_schulz_flops(rows: int, columns: int, precision: str = "fp32") -> int:
    """Of one matrix, rows <= columns: X X^T, its square, and their sum times X, in each iteration; of a wide
    one in fp32 (`train.optim.muon.WIDE`) X is used at the beginning and at the end only.
    """
    if precision == "fp32" and columns >= 1.5 * rows:
        return 4 * rows**2 * columns + (8 * NEWTON_SCHULZ - 6) * rows**3
    return NEWTON_SCHULZ * (4 * rows**2 * columns + 2 * rows**3)


SIDE = {"cpu": 1024, "cuda": 4096}
"""Of the square matrices: a CPU multiplies 1,024 at full speed, a large card needs 4,096."""
BUDGET_S = {"cpu": 0.06, "cuda": 0.3}
"""Seconds of products, after one that warms up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Throughput:
    """Turns tokens per second into shares of what the devices could do."""

    flops_per_token: int
    """That the model needs, forward and backward."""
    ranks: int
    """Devices that share the work, taken as equal."""
    nameplate: float | None
    """FLOP/s of one device by its data sheet; None for a card that is not listed, and for a CPU."""
    gemm: float | None
    """FLOP/s that a matrix product reached on one device; None where none was measured."""

    @property
    def peaks(self) -> dict[str, float]:
        """FLOP/s of one device as far as they are known, for a record."""
        known = {"nameplate_flops": self.nameplate, "gemm_flops": self.gemm}
        return {name: value for name, value in known.items() if value is not None}

    def of(self, tokens_per_second: float) -> dict[str, float]:
        """`mfu` (of the data sheet) and `mfu_gemm`, 0 to 1; what is not known is left out, never 0."""
        work = self.flops_per_token * tokens_per_second / self.ranks
        peaks = {"mfu": self.nameplate, "mfu_gemm": self.gemm}
        return {name: round(work / peak, 4) for name, peak in peaks.items() if peak and tokens_per_second}


def throughput(
    model: ModelConfig,
    seq_len: int,
    device: torch.device,
    precision: Precision,
    ranks: int = 1,
    *,
    measure: bool = True,
    adapters: Adapters | None = None,
) -> Throughput:
    """The peaks of this device; takes about `BUDGET_S`, once a process."""
    return Throughput(
        flops_per_token=flops_per_token(model, seq_len, adapters=adapters),
        ranks=ranks,
        nameplate=nameplate(device, precision.name),
        gemm=gemm_flops(device, precision.name, torch_threads()) if measure else None,
    )


def nameplate(device: torch.device, precision: str) -> float | None:
    """FLOP/s of the data sheet in this precision; None for a CPU and for a card that is not listed."""
    import torch

    if device.type != "cuda":
        return None
    card = data_sheet(torch.cuda.get_device_name(device))
    return None if card is None else card.nameplate(precision)


def torch_threads() -> int:
    """Threads of a CPU's product."""
    import torch

    return torch.get_num_threads()


@lru_cache
def gemm_flops(device: torch.device, precision: str, threads: int) -> float | None:
    """FLOP/s of square matrix products in the training's format; None where they do not fit its memory.

    threads: that torch uses now; remembered with the result, not set. The fastest of several short runs: a
    another process or a slow start makes a product slower, never faster.
    """
    import torch

    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    side, budget_s = SIDE.get(device.type, SIDE["cpu"]), BUDGET_S.get(device.type, BUDGET_S["cpu"])
    try:
        left = torch.full((side, side), 0.5, dtype=dtype, device=device)
        right, out = left.clone(), torch.empty_like(left)
        _timed(left, right, out, 1)
        once = _timed(left, right, out, 1)
        repeats = max(1, min(50, int(budget_s / 4 / max(once, 1e-6))))
        best, spent = once, once
        while spent < budget_s:
            seconds = _timed(left, right, out, repeats)
            best, spent = min(best, seconds / repeats), spent + seconds
    except RuntimeError:  # out of memory beside a model that fills the card
        return None
    return 2 * side**3 / best


def _timed(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor, repeats: int) -> float:
    """Seconds of so many products."""
    import torch

    _wait(left.device)
    began = time.perf_counter()
    for _ in range(repeats):
        torch.mm(left, right, out=out)
    _wait(left.device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
