"""The planner's settings as a table and as JSON: what `info` and `train --dry-run` both show."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ptbr_slm.cli.output import table
from ptbr_slm.text import number
from ptbr_slm.train.planning.choice import Machine, Setting, policy_name
from ptbr_slm.train.planning.memory import GIB

HEADER = (
    "checkpointing", "perda", "lote", "pesos", "cópias", "grad.", "otim.", "ativ.", "logits", "outros",
    "total", "tokens/s", "",
)  # fmt: skip


def options_text(options: Sequence[Setting], machine: Machine) -> str:
    """A line a setting: GiB of each part at the peak, tokens/s of all devices, and whether it fits."""
    where = "por GPU" if machine.kind == "cuda" else "neste computador"
    title = f"Opções, em GiB {where} (tudo calculado, nada medido):"
    return f"{title}\n\n{table([_row(option, machine) for option in options], header=HEADER)}"


def options_data(options: Sequence[Setting], machine: Machine) -> list[dict[str, Any]]:
    """The same as JSON; bytes."""
    return [
        {
            "checkpointing": policy_name(option.checkpoint_every),
            "loss": option.loss,
            "batch_size": option.batch_size,
            "memory_bytes": {**dataclasses.asdict(option.memory), "total": option.memory.total},
            "tokens_per_second": round(option.tokens_per_second, 1),
            "fits": option.memory.total <= machine.budget,
            "basis": "computed",
        }
        for option in options
    ]


def _row(option: Setting, machine: Machine) -> list[str]:
    m = option.memory
    others = m.workspace + m.communication + m.context
    parts = (m.weights, m.autocast_cache, m.gradients, m.optimizer, m.activations, m.logits, others, m.total)
    return [
        policy_name(option.checkpoint_every),
        option.loss,
        str(option.batch_size),
        *(number(part / GIB, 2) for part in parts),
        number(option.tokens_per_second),
        "cabe" if m.total <= machine.budget else "não cabe",
    ]
