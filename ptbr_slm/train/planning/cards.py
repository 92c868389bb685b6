"""What a card promises on paper: peak of matrix products and memory bandwidth. No torch here."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
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


def _card(name: str, half: float, single: float, bandwidth: float, sustained: float | None = None) -> Card:
    """Figures in TFLOP/s and GB/s, as data sheets give them."""
    assumed = 0.4 * half if sustained is None else sustained  # a share that tuned trainers reach on an A100
    return Card(
        name=name, half=half * 1e12, single=single * 1e12, bandwidth=bandwidth * 1e9, sustained=assumed * 1e12
    )


T4 = _card("T4", 65, 8.1, 320, sustained=14)
"""Its 70 W hold fp16 products at 20-24 TFLOP/s, of which training reaches 55-75 % (assumed).

20.4: MakazhanAlpamys/Soup#967 on GitHub. 24: forums.developer.nvidia.com, topic 264462."""

_CARDS: tuple[tuple[str, Card], ...] = (
    (r"\bT4\b", T4),
    (r"\bP100\b", _card("P100", 18.7, 9.3, 732)),
    (r"\bV100\b", _card("V100", 112, 14, 900)),
    (r"\bA100\b.*\b80GB\b", _card("A100", 312, 19.5, 1935)),
    (r"\bA100\b", _card("A100", 312, 19.5, 1555)),
    (r"\bA10G\b", _card("A10G", 70, 31.5, 600)),
    (r"\bA10\b", _card("A10", 125, 31.2, 600)),
    (r"\bL4\b", _card("L4", 121, 30.3, 300)),
    (r"\bL40S\b", _card("L40S", 362, 91.6, 864)),
    (r"\bH100\b.*\bPCIe\b", _card("H100 PCIe", 756, 51, 2000)),
    (r"\bH100\b.*\bNVL\b", _card("H100 NVL", 835, 60, 3900)),
    (r"\bH100\b", _card("H100", 989, 67, 3350)),
    (r"\bH200\b", _card("H200", 989, 67, 4800)),
    (r"\bB200\b", _card("B200", 2250, 75, 8000)),
    (r"\bRTX 2080 Ti\b", _card("RTX 2080 Ti", 53.8, 13.4, 616)),
    (r"\bRTX 3060\b(?! Ti)", _card("RTX 3060", 25.5, 12.7, 360)),
    (r"\bRTX 3090\b(?! Ti)", _card("RTX 3090", 71, 35.6, 936)),
    (r"\bRTX 4090\b", _card("RTX 4090", 165.2, 82.6, 1008)),
)
"""Pattern of the driver's name -> data sheet (NVIDIA, dense; GeForce with fp32 accumulation)."""


def card_of(name: str) -> Card | None:
    """The data sheet of a card by the driver's name, such as `Tesla T4`; None for one that is not listed."""
    return next((card for pattern, card in _CARDS if re.search(pattern, name, re.IGNORECASE)), None)
