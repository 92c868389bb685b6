"""What the machine says while a run goes on: the most memory used so far, and the energy of its cards."""

from __future__ import annotations

import importlib.util
import sys

import torch

from ptbr_slm.train.reporting.energy import energy_meter


class Gauges:
    """Read once a step; whatever this machine cannot say is left out."""

    def __init__(self, device: torch.device, cards: int = 1) -> None:
        """cards: how many this session uses on this machine."""
        self._device = device
        self._energy = energy_meter(device.type, cards)

    def record(self) -> dict[str, float]:
        """`memory_bytes` and `energy_kwh`, for a step's record."""
        memory = self.memory_bytes()
        return ({} if memory is None else {"memory_bytes": memory}) | self._energy.record()

    def memory_bytes(self) -> int | None:
        """On a GPU the most that PyTorch has reserved; on a CPU the largest resident size."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_reserved(self._device))
        if importlib.util.find_spec("resource") is None:  # Windows
            return None
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # KiB on Linux, bytes on a Mac
