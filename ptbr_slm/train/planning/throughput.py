"""How much of the device a training uses: MFU of the data sheet's peak, and of a product measured here.

MFU (PaLM, arXiv:2204.02311, B): FLOPs that the model needs, recomputation not counted, over the peak. The
data sheet's is out of reach where the power limit slows a card down (a T4 holds 20 to 24 of 65 TFLOP/s): the
second figure says how well the training does against what this very card does today.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from ptbr_slm.config import ModelConfig
from ptbr_slm.train.planning.cards import card_of
from ptbr_slm.train.planning.flops import flops_per_token

if TYPE_CHECKING:
    import torch

    from ptbr_slm.train.planning.precision import Precision

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
) -> Throughput:
    """The peaks of this device; takes about `BUDGET_S`, once a process."""
    return Throughput(
        flops_per_token=flops_per_token(model, seq_len),
        ranks=ranks,
        nameplate=nameplate(device, precision.name),
        gemm=gemm_flops(device, precision.name, torch_threads()) if measure else None,
    )


def nameplate(device: torch.device, precision: str) -> float | None:
    """FLOP/s of the data sheet in this precision; None for a CPU and for a card that is not listed."""
    import torch

    if device.type != "cuda":
        return None
    card = card_of(torch.cuda.get_device_name(device))
    return None if card is None else card.nameplate(precision)


def torch_threads() -> int:
    """Threads of a CPU's product."""
    import torch

    return torch.get_num_threads()


@lru_cache
def gemm_flops(device: torch.device, precision: str, threads: int) -> float | None:
    """FLOP/s of square matrix products in the training's format; None where the device has no room for them.

    threads: that torch uses now; remembered with the result, not set. The fastest of several short runs: a
    neighbour or a slow start makes a product slower, never faster.
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
