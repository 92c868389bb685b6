"""The shapes that a TensorRT engine is built for: outside of them ORT would build it anew, for minutes.

One session a profile: TensorRT's provider builds several profiles into one engine but runs only the first
(onnxruntime#31624), and kernels chosen for a range that holds both one token and a chunk suit neither.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.slots import PREFILL_CHUNK

MAX_ROWS = 16
"""Rows a decode step runs at once; larger batches go in parts."""

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Ranges (least, most likely, most) of the three free dimensions of the std graph."""

    name: str
    rows: tuple[int, int, int]
    new: tuple[int, int, int]
    """Tokens a row."""
    wanted: tuple[int, int, int]
    """Positions a row whose logits are asked for."""

    @property
    def max_rows(self) -> int:
        """Rows that one call takes at most."""
        return self.rows[2]

    def shapes(self, config: ModelConfig) -> dict[str, tuple[Shape, Shape, Shape]]:
        """Every input's least, most likely and largest shape: TensorRT wants all of them named."""
        least, likely, most = (self._shapes(config, kind) for kind in range(3))
        return {name: (least[name], likely[name], most[name]) for name in least}

    def options(self, config: ModelConfig) -> dict[str, str]:
        """The provider's options that say the same: `input_ids:1x1,position_ids:1x1,...`."""
        shapes = self.shapes(config)
        return {
            f"trt_profile_{word}_shapes": ",".join(
                f"{name}:{'x'.join(map(str, ranges[kind]))}" for name, ranges in shapes.items()
            )
            for kind, word in enumerate(("min", "opt", "max"))
        }

    def _shapes(self, config: ModelConfig, kind: int) -> dict[str, Shape]:
        """Of the least (0), most likely (1) or largest (2) call."""
        rows, new, wanted = self.rows[kind], self.new[kind], self.wanted[kind]
        cache = (rows, config.num_kv_heads, config.max_seq_len, config.head_dim)
        return {
            "input_ids": (rows, new),
            "position_ids": (rows, new),
            "write_indices": (rows,),
            "logits_index": (rows, wanted),
            **{
                f"past_key_values.{layer}.{side}": cache
                for layer in range(config.num_layers)
                for side in ("key", "value")
            },
        }

    def require(self, rows: int, new: int, wanted: int) -> None:
        """Raise E_PROVIDER for a call that the engine was not built for."""
        for what, value, (low, _, high) in (
            ("textos", rows, self.rows),
            ("tokens por texto", new, self.new),
            ("posições pedidas", wanted, self.wanted),
        ):
            if not low <= value <= high:
                raise SlmError(
                    "E_PROVIDER",
                    f"o motor do TensorRT foi compilado para {low} a {high} {what}, não {value}.",
                    where=f"perfil {self.name}",
                    hint="Relate este defeito: o ptbr-slm deveria ter dividido a chamada.",
                )


DECODE = Profile(name="decode", rows=(1, 1, MAX_ROWS), new=(1, 1, 1), wanted=(1, 1, 1))
"""One token for each of a few texts; tuned for a single text."""
PREFILL = Profile(
    name="prefill", rows=(1, 1, 1), new=(1, PREFILL_CHUNK, PREFILL_CHUNK), wanted=(1, 1, PREFILL_CHUNK)
)
"""A chunk of one text; tuned for a full chunk of which only the last position is wanted."""


def digest(*profiles: Profile) -> str:
    """What distinguishes engines built for other shapes, as a short name."""
    return hashlib.sha256(repr(profiles).encode()).hexdigest()[:8]
