"""What figures are measured on: the machine's facts, how fast its memory is read, and both as text."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from ptbr_slm.gpus import Gpu, find_gpus
from ptbr_slm.system import cpu_cores, installed_version, memory_bytes, processor_name
from ptbr_slm.text import number
from ptbr_slm.version import __version__

GIB = 1 << 30
MEGABYTES = 512
"""Far more than any last-level cache."""
REPEATS = 8


def read_bandwidth(threads: int, *, megabytes: int = MEGABYTES, repeats: int = REPEATS) -> float:
    """Bytes/s of a streaming read by `threads` threads: the fastest of `repeats`, or of one thread if faster.

    Each thread takes the dot product of its part with itself, which reads every number once and, unlike
    NumPy's sums, keeps up with the memory (within 15 % of PyTorch's sum, measured in turns, 2026-11-22).
    NumPy's own threads must be switched off before it is imported (OPENBLAS_NUM_THREADS=1).
    """
    array = np.ones(megabytes << 18, dtype=np.float32)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for count in {threads, 1}:
            parts = np.array_split(array, count)
            for _ in range(repeats):
                began = time.perf_counter()
                list(pool.map(_read, parts))
                best = min(best, time.perf_counter() - began)
    return array.nbytes / best


def _read(part: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
    np.dot(part, part)


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineFacts:
    """Cards, driver and versions: what a figure is worth nothing without."""

    date: str
    """ISO 8601, UTC."""
    device: str
    """`cuda` or `cpu`: what was measured."""
    gpus: tuple[Gpu, ...]
    cpu: str
    cpu_cores: int
    memory_bytes: int | None
    platform: str
    python: str
    torch: str | None
    ptbr_slm: str
    load_average: float | None


def machine(kind: str) -> MachineFacts:
    """This machine, now. kind: `cuda` or `cpu`."""
    return MachineFacts(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        device=kind,
        gpus=find_gpus(),
        cpu=processor_name(),
        cpu_cores=cpu_cores(),
        memory_bytes=memory_bytes(),
        platform=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=installed_version("torch"),
        ptbr_slm=__version__,
        load_average=round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    )


def about(machine: MachineFacts) -> str:
    """The machine in a line."""
    cards = [f"{gpu.name} (driver {gpu.driver})" for gpu in machine.gpus]
    where = " + ".join(cards) if machine.device == "cuda" else machine.cpu
    load = machine.load_average
    return (
        f"Medido em {machine.date}: {where}, {machine.cpu_cores} núcleos, "
        f"{number((machine.memory_bytes or 0) / GIB)} GiB de memória, carga "
        f"{'?' if load is None else number(load, 1)}; Python {machine.python}, torch {machine.torch}, "
        f"ptbr-slm {machine.ptbr_slm}."
    )


def markdown_line(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"
