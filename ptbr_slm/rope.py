"""RoPE's frequencies, scaled for long contexts or not: one rule, for the PyTorch model and for every graph.

Pure Python, as `config.py` is: the command line reads shapes without NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["linear", "llama3"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeScaling:
    """How a model stretches its rotations, so that it tells positions beyond its first training apart."""

    kind: Kind
    """`linear` (Chen et al., 2023, arXiv:2306.15595) or `llama3` (Llama 3.1: only the slow rotations)."""
    factor: float
    """By how much the slow rotations are slowed down; 1 changes nothing."""
    low_freq_factor: float = 1.0
    """llama3: rotations that turn fewer times than this over the original context are slowed down in full."""
    high_freq_factor: float = 4.0
    """llama3: rotations that turn more often than this are left alone; between the two it is blended."""
    original_max_seq_len: int = 8192
    """llama3: the context of the first training, in tokens."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.factor) and self.factor >= 1):
            raise ValueError(f"factor {self.factor!r}")
        if self.kind == "llama3" and not 0 < self.low_freq_factor < self.high_freq_factor:
            raise ValueError(f"low_freq_factor {self.low_freq_factor!r}")
        if self.original_max_seq_len < 1:
            raise ValueError(f"original_max_position_embeddings {self.original_max_seq_len!r}")

    def slowed(self, frequency: float) -> float:
        """The frequency (radians a position) that takes the place of `frequency`."""
        if self.kind == "linear":
            return frequency / self.factor
        turns = self.original_max_seq_len * frequency / (2 * math.pi)  # over the original context
        kept = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        kept = min(1.0, max(0.0, kept))
        return (1 - kept) * frequency / self.factor + kept * frequency

    def to_hf(self) -> dict[str, Any]:
        """As in `rope_parameters` of a config.json."""
        plain: dict[str, Any] = {"rope_type": self.kind, "factor": self.factor}
        if self.kind == "llama3":
            plain |= {
                "low_freq_factor": self.low_freq_factor,
                "high_freq_factor": self.high_freq_factor,
                "original_max_position_embeddings": self.original_max_seq_len,
            }
        return plain


def frequencies(theta: float, head_dim: int, scaling: RopeScaling | None) -> list[float]:
    """Radians a position of each of the D/2 rotations: theta^(-2i/D) (Su et al., 2021), scaled."""
    plain = [theta ** (-i / head_dim) for i in range(0, head_dim, 2)]
    return plain if scaling is None else [scaling.slowed(frequency) for frequency in plain]


def rope_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """The RoPE entries of a config.json: transformers 5's `rope_parameters`, or the older `rope_scaling`."""
    found = body.get("rope_parameters") or body.get("rope_scaling") or {}
    return dict(found) if isinstance(found, Mapping) else {"rope_type": "?"}


def rope_type(body: Mapping[str, Any]) -> str:
    """The kind of RoPE that a config.json asks for."""
    rope = rope_body(body)
    return str(rope.get("rope_type") or rope.get("type") or "default")


def read_scaling(body: Mapping[str, Any]) -> RopeScaling | None:
    """The scaling of a config.json whose kind is known. Raises KeyError or ValueError for a bad one."""
    rope, kind = rope_body(body), rope_type(body)
    if kind == "linear":
        return RopeScaling(kind="linear", factor=float(rope["factor"]))
    if kind == "llama3":
        return RopeScaling(
            kind="llama3",
            factor=float(rope["factor"]),
            low_freq_factor=float(rope["low_freq_factor"]),
            high_freq_factor=float(rope["high_freq_factor"]),
            original_max_seq_len=int(rope["original_max_position_embeddings"]),
        )
    return None
