"""The part of `info` that recommends: what `--batch-size auto` would choose on one card and on two."""

from __future__ import annotations

from typing import Any

from ptbr_slm.cli.output import table
from ptbr_slm.config import ModelConfig
from ptbr_slm.text import number
from ptbr_slm.train.config import default_tokens_per_step
from ptbr_slm.train.planning.choice import Machine, Request, Setting, choose, policy_name
from ptbr_slm.train.planning.memory import GIB
from ptbr_slm.train.planning.speed import T4, gpu_speed

WAYS = (
    (1, "adamw", "ddp"), (1, "adamw8bit", "ddp"), (1, "muon", "ddp"),
    (2, "adamw", "ddp"), (2, "adamw", "fsdp"), (2, "adamw8bit", "ddp"), (2, "muon", "ddp"),
)  # fmt: skip
"""(cards, optimizer, parallel): Kaggle lends two T4s; one is what a rented machine often has."""

HEADER = ("placas", "otimizador", "dividir", "lote", "acum.", "checkpointing", "perda", "GiB", "tokens/s")


def recommend(
    config: ModelConfig, seq_len: int, precision: str, card_bytes: int
) -> list[tuple[tuple[int, str, str], int, Setting | None]]:
    """(way, sequences of a step, the setting to take or None where none fits) for each of `WAYS`."""
    sequences = default_tokens_per_step(config.num_parameters, seq_len) // seq_len
    device = gpu_speed(T4, precision)
    found = []
    for cards, optimizer, parallel in WAYS:
        machine = Machine(kind="cuda", memory_bytes=card_bytes, device=device, ranks=cards)
        request = Request(
            model=config,
            sequences=sequences,
            seq_len=seq_len,
            precision=precision,
            optimizer=optimizer,
            parallel=parallel,
        )
        fits = cards <= sequences
        found.append(((cards, optimizer, parallel), sequences, choose(request, machine) if fits else None))
    return found


def recommended_data(
    config: ModelConfig, seq_len: int, precision: str, card_bytes: int
) -> list[dict[str, Any]]:
    """The recommendations as JSON."""
    rows: list[dict[str, Any]] = []
    for (cards, optimizer, parallel), sequences, best in recommend(config, seq_len, precision, card_bytes):
        row: dict[str, Any] = {"cards": cards, "optimizer": optimizer, "parallel": parallel, "fits": False}
        if best is not None:
            row |= {
                "fits": True,
                "batch_size": best.batch_size,
                "grad_accum": sequences // best.batch_size,
                "checkpointing": policy_name(best.checkpoint_every),
                "loss": best.loss,
                "total": best.memory.total,
                "tokens_per_second": round(best.tokens_per_second, 1),
                "basis": "computed",
            }
        rows.append(row)
    return rows


def recommended_text(config: ModelConfig, seq_len: int, precision: str, card_bytes: int) -> str:
    """The recommendations as a table."""
    found = recommend(config, seq_len, precision, card_bytes)
    tokens = found[0][1] * seq_len
    return "\n".join(
        [
            f"O que o treino escolheria com --batch-size auto, seq {seq_len}, {number(tokens)} tokens/passo",
            "(GiB por placa, tokens/s de todas as placas: calculados, com a velocidade de T4s do Kaggle):",
            "",
            table([_row(*line) for line in found], header=HEADER),
        ]
    )


def _row(way: tuple[int, str, str], sequences: int, best: Setting | None) -> list[str]:
    cards, optimizer, parallel = way
    how = "–" if cards == 1 else parallel
    if best is None:
        return [str(cards), optimizer, how, "não cabe", "–", "–", "–", "–", "–"]
    return [
        str(cards),
        optimizer,
        how,
        str(best.batch_size),
        str(sequences // best.batch_size),
        policy_name(best.checkpoint_every),
        best.loss,
        number(best.memory.total / GIB, 2),
        number(best.tokens_per_second),
    ]
