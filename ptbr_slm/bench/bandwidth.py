"""How fast this machine's memory can be read, with NumPy alone: the roof of every decode step."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

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
