"""The part of `info` that calculates how fast a T4 would write: the reading of the weights, nothing else."""

from __future__ import annotations

from typing import Any

from ptbr_slm.config import ModelConfig
from ptbr_slm.text import number
from ptbr_slm.train.planning.speed import T4

SHARE = 0.8
"""Of the data sheet's bandwidth, a good share for a kernel that only reads: assumed."""
BITS = {"fp16": (16.0, 16.0), "int8": (8.5, 8.5), "int4": (4.5, 8.5)}
"""Precision of an export for CUDA -> bits of a weight, and of one of the head, with the fp16 scale that 32
weights share; int4 keeps its head in int8 (docs/CUDA.md)."""


def decode_bytes(config: ModelConfig, precision: str) -> int:
    """Bytes of weights that one token reads. An embedding that is not the head too is only looked up."""
    bits, head_bits = BITS[precision]
    head = config.vocab_size * config.hidden_size
    rest = config.num_parameters - head * (1 if config.tie_embeddings else 2)
    return round((rest * bits + head * head_bits) / 8)


def decode_data(config: ModelConfig) -> list[dict[str, Any]]:
    """For each precision, what a T4 would write, as JSON."""
    rows: list[dict[str, Any]] = []
    for precision in BITS:
        size = decode_bytes(config, precision)
        speed = round(SHARE * T4.bandwidth / size, 1)
        rows.append(
            {"precision": precision, "weight_bytes": size, "tokens_per_second": speed, "basis": "computed"}
        )
    return rows


def decode_text(config: ModelConfig) -> str:
    """The same as a sentence."""
    rows = decode_data(config)
    speeds = ", ".join(f"{row['precision']} {number(row['tokens_per_second'])}" for row in rows)
    share, bandwidth = number(100 * SHARE), number(T4.bandwidth / 1e9)
    return (
        f"Escrever numa T4 com o export para CUDA, um texto por vez, em tokens/s: {speeds}\n"
        f"(calculado: só a leitura dos pesos, a {share} % dos {bandwidth} GB/s)."
    )
