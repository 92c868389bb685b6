"""Section `gemm`: what this card multiplies and reads today: other figures are shares of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ptbr_slm.bench import t4_rules
from ptbr_slm.bench.gpu.asked import Asked
from ptbr_slm.bench.gpu.results import Answer
from ptbr_slm.faults import maybe_fail
from ptbr_slm.train.planning.speed import LAUNCH_S, DataSheet, data_sheet

READ_BYTES = {"cuda": 1 << 30, "cpu": 64 << 20}
"""Of one read: on a card far beyond its cache (50 MiB on an H100)."""
REPEATS = {"cuda": 20, "cpu": 3}
KERNELS = 2000
MOST = 1.1
"""Of the data sheet: boost clocks pass it by a little; more than that is a fault of the measurement."""


def measure(asked: Asked, answer: Answer) -> None:
    """`facts`: gemm_flops and bandwidth (bytes/s)."""
    import torch

    from ptbr_slm.train.planning.speed import gemm_flops, torch_threads

    rules = t4_rules.apply()
    device = torch.device(asked.device, 0) if asked.device == "cuda" else torch.device("cpu")
    card = data_sheet(rules.card) if rules.card else None
    for precision in ("fp16", "fp32") if asked.device == "cuda" else ("fp32",):
        with answer.attempt(f"gemm {precision}"):
            flops = gemm_flops(device, precision, torch_threads())
            if flops is None:
                answer.missing(f"gemm {precision}", "oom", "não há memória para as matrizes")
                continue
            flops *= 100 if maybe_fail("bench.gemm.flops") else 1
            answer.facts.setdefault("gemm_flops", flops)
            sheet = card.nameplate(precision) if card else None
            answer.line(f"gemm {precision}", flops=flops, nameplate=sheet, share=_share(flops, sheet))
            _sane(answer, f"gemm_{precision}", f"produto {precision} sobre a ficha técnica", flops, sheet)
    with answer.attempt("read"):
        _bandwidth(torch, device, card, answer)
    with answer.attempt("launch"):
        _launches(torch, device, answer)


def _bandwidth(torch: Any, device: Any, card: DataSheet | None, answer: Answer) -> None:
    """Bytes/s of a sum, which reads, and of a copy, which reads and writes."""
    size, repeats = READ_BYTES[device.type], REPEATS[device.type]
    source = torch.ones(size // 4, dtype=torch.float32, device=device)
    sheet = card.bandwidth if card else None
    total = torch.empty((), device=device)
    read = size / _best(torch, device, repeats, lambda: torch.sum(source, 0, out=total))
    answer.facts["bandwidth"] = read
    answer.line("read", bytes_per_second=read, bytes=size, nameplate=sheet, share=_share(read, sheet))
    _sane(answer, "read", "leitura da memória sobre a ficha técnica", read, sheet)
    target = torch.empty_like(source)
    copy = 2 * size / _best(torch, device, repeats, lambda: target.copy_(source))
    answer.line("copy", bytes_per_second=copy, bytes=2 * size, nameplate=sheet, share=_share(copy, sheet))


def _launches(torch: Any, device: Any, answer: Answer) -> None:
    """Seconds of one small kernel in a row of many: what a step of a small model is made of."""
    one = torch.zeros(1, device=device)

    def many() -> None:
        for _ in range(KERNELS):
            one.add_(1)

    seconds = _best(torch, device, 3, many) / KERNELS
    answer.line("launch", seconds=seconds, planned_seconds=LAUNCH_S)


def _best(torch: Any, device: Any, repeats: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest of several runs, after one that warms up."""
    times = []
    for _ in range(repeats + 1):
        _wait(torch, device)
        began = time.perf_counter()
        work()
        _wait(torch, device)
        times.append(time.perf_counter() - began)
    return min(times[1:])


def _wait(torch: Any, device: Any) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _share(value: float, sheet: float | None) -> float | None:
    return value / sheet if sheet else None


def _sane(answer: Answer, name: str, label: str, value: float, sheet: float | None) -> None:
    """More than the card can do is a fault of the measurement, and so is next to nothing."""
    answer.check(name, label, _share(value, sheet), low=0.05, high=MOST)
