"""What a card could do with a model: what fits, what to choose, how fast it decodes.

All of it is calculated, before anything is spent. No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ptbr_slm.config import ModelConfig
from ptbr_slm.train.config import default_tokens_per_step
from ptbr_slm.train.planning.choice import Machine, Request, Setting, choose
from ptbr_slm.train.planning.memory import T4_BYTES, MemoryEstimate
from ptbr_slm.train.planning.speed import T4, gpu_speed

TIGHT = 0.05
"""Share of the card below which free memory is called tight: the allocator's fragmentation is not counted."""

SETUPS = (
    (1, "muon", "ddp"), (1, "adamw", "ddp"), (1, "adamw8bit", "ddp"),
    (2, "muon", "ddp"), (2, "adamw", "ddp"), (2, "adamw8bit", "ddp"), (2, "adamw", "fsdp"),
)  # fmt: skip
"""(cards, optimizer, parallel): Kaggle lends two T4s; one is what a rented machine often has."""

DECODE_SHARE = 0.8
"""Of the data sheet's bandwidth, a good share for a kernel that only reads: assumed."""
DECODE_BITS = {"fp16": (16.0, 16.0), "int8": (8.5, 8.5), "int4": (4.5, 8.5)}
"""Precision of an export for CUDA -> bits of a weight, and of one of the head, with the fp16 scale that 32
weights share; int4 keeps its head in int8 (docs/CUDA.md)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommendation:
    """What `--batch-size auto` would choose on so many T4s."""

    cards: int
    optimizer: str
    parallel: str
    sequences: int
    """Of one optimizer step, over all cards."""
    setting: Setting | None
    """None where nothing fits."""


def fit(estimate: MemoryEstimate, card_bytes: int = T4_BYTES) -> Literal["yes", "tight", "no"]:
    """Whether the card holds it: yes, tight (less than 5 % of it left), or no."""
    if estimate.total > card_bytes:
        return "no"
    return "tight" if estimate.total > (1 - TIGHT) * card_bytes else "yes"


def recommend(config: ModelConfig, seq_len: int, precision: str, card_bytes: int) -> list[Recommendation]:
    """A recommendation for each of `SETUPS`."""
    sequences = default_tokens_per_step(config.num_parameters, seq_len) // seq_len
    device = gpu_speed(T4, precision)
    found = []
    for cards, optimizer, parallel in SETUPS:
        machine = Machine(kind="cuda", memory_bytes=card_bytes, device=device, ranks=cards)
        request = Request(
            model=config,
            sequences=sequences,
            seq_len=seq_len,
            precision=precision,
            optimizer=optimizer,
            parallel=parallel,
        )
        setting = choose(request, machine) if cards <= sequences else None
        found.append(
            Recommendation(
                cards=cards, optimizer=optimizer, parallel=parallel, sequences=sequences, setting=setting
            )
        )
    return found


def decode_bytes(config: ModelConfig, precision: str) -> int:
    """Bytes of weights that one token reads. An embedding that is not the head too is only looked up."""
    bits, head_bits = DECODE_BITS[precision]
    head = config.vocab_size * config.hidden_size
    rest = config.num_parameters - head * (1 if config.tie_embeddings else 2)
    return round((rest * bits + head * head_bits) / 8)


def decode_speed(config: ModelConfig, precision: str) -> float:
    """Tokens/s of one text on a T4, from the reading of the weights alone."""
    return DECODE_SHARE * T4.bandwidth / decode_bytes(config, precision)
