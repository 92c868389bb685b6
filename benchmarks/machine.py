"""What a figure was measured on: processor, versions, load, and how fast the memory can be read."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

_VECTOR_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "i8mm")


def facts(packages: Sequence[str], threads: int) -> str:
    """One paragraph for the reader of a table: date, processor, load, versions."""
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return (
        f"Measured on {date.today().isoformat()}: {_processor()}, {os.cpu_count()} logical cores, "
        f"{threads} threads, load average {busy:.1f} at the start; Python {platform.python_version()}, "
        f"{versions}."
    )


def read_bandwidth(threads: int, *, megabytes: int = 512, repeats: int = 12) -> float:
    """Bytes/s of a streaming read by `threads` threads: the fastest of `repeats` sums over a float32 array
    far larger than the last-level cache.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    array = torch.ones(megabytes << 18)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        array.sum()
        best = min(best, time.perf_counter() - start)
    torch.set_num_threads(before)
    return array.numel() * 4 / best


def peak_memory() -> int:
    """Bytes of this process's largest resident memory so far.

    VmHWM and not ru_maxrss, which a child process inherits from its parent (Linux, fs/exec.c).
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if platform.system() == "Darwin" else usage * 1024


def _processor() -> str:
    """Model name, the vector instructions that matter here, and the last-level cache."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    fields = dict(
        (part.strip() for part in line.split(":", 1)) for line in info.read_text().splitlines() if ":" in line
    )
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    vectors = "/".join(flag for flag in _VECTOR_FLAGS if flag in flags)
    if "hide_avx512" in os.environ.get("LD_PRELOAD", ""):
        vectors = f"avx2 alone (hide_avx512.c hides the rest of {vectors})"
    family = f" (family {fields['cpu family']} model {fields['model']})" if "cpu family" in fields else ""
    cache = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
    last_level = f", L3 {cache.read_text().strip()}" if cache.exists() else ""
    return f"{fields.get('model name', platform.machine())}{family} with {vectors}{last_level}"
