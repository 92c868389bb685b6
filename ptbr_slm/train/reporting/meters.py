"""Measurements of the machine during a run: the most memory used so far, and the energy of its cards.

Energy comes from NVML where `nvidia-ml-py` is installed; nothing elsewhere. The driver's own counter (Volta
and newer) where there is one, else the power read at each step times the time since the last. The cards
alone: neither processor nor fans, and another program on the same card counts, too.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

JOULES_PER_KWH = 3.6e6
READ_EVERY_S = 1.0
"""Reading costs about a millisecond a card."""


class Meters:
    """Read once a step; what this machine cannot measure is left out."""

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


class EnergyMeter:
    """kWh of some cards since this object was made."""

    def __init__(self, nvml: Any, handles: list[Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._nvml, self._handles, self._clock = nvml, handles, clock
        self._joules, self._read_at = 0.0, clock()
        self._counters = [self._counter(handle) for handle in handles]
        self._works = bool(handles)

    def record(self) -> dict[str, float]:
        """`energy_kwh` for a record; empty where nothing can be measured."""
        if not self._works:
            return {}
        if self._clock() - self._read_at >= READ_EVERY_S:
            try:
                self._read()
            except self._nvml.NVMLError:
                self._works = False  # the driver stopped answering: no figure from here on
                return {}
        return {"energy_kwh": round(self._joules / JOULES_PER_KWH, 9)}

    def _read(self) -> None:
        now = self._clock()
        for index, handle in enumerate(self._handles):
            before, counter = self._counters[index], self._counter(handle)
            if counter is not None and before is not None and counter >= before:
                self._joules += (counter - before) / 1000  # mJ
            else:
                self._joules += (
                    self._nvml.nvmlDeviceGetPowerUsage(handle) / 1000 * (now - self._read_at)
                )  # mW
            self._counters[index] = counter
        self._read_at = now

    def _counter(self, handle: Any) -> int | None:
        """Millijoules since the driver was loaded; None on cards without the counter."""
        try:
            return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        except self._nvml.NVMLError:
            return None


class NoMeter:
    """Where nothing can be measured."""

    def record(self) -> dict[str, float]:
        """Nothing."""
        return {}


def energy_meter(device_type: str, cards: int) -> EnergyMeter | NoMeter:
    """A meter of the first `cards` cards that CUDA sees; `NoMeter` on a CPU or without NVML."""
    if device_type != "cuda" or importlib.util.find_spec("pynvml") is None:
        return NoMeter()
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [handle_of(pynvml, name) for name in visible(os.environ, pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return NoMeter()
    return EnergyMeter(pynvml, handles[:cards])


def visible(environment: Mapping[str, str], count: int) -> list[str]:
    """The cards of CUDA_VISIBLE_DEVICES, numbers or UUIDs, in its order; all `count` where it is not set."""
    given = environment.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return [str(index) for index in range(count)]
    return [name.strip() for name in given.split(",") if name.strip()]


def handle_of(nvml: Any, name: str) -> Any:
    """NVML's handle of a number or a UUID."""
    if name.isdecimal():
        return nvml.nvmlDeviceGetHandleByIndex(int(name))
    return nvml.nvmlDeviceGetHandleByUUID(name)


def total_kwh(readings: list[float]) -> float:
    """kWh of a run from the readings of all its sessions in order: each session counts from 0 again."""
    total = before = 0.0
    for reading in readings:
        total += reading - before if reading >= before else reading
        before = reading
    return total
