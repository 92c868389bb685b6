"""What `plan -o` writes: the plan to read, the settings for `train --config`, the commands, the JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptbr_slm.cli.week_commands import commands
from ptbr_slm.storage.atomic import write_text
from ptbr_slm.storage.output import make_folder
from ptbr_slm.train.config_file import to_values, toml_text
from ptbr_slm.train.planning.week import WeekPlan

KEYS = (
    "data", "cooldown_data", "output", "model_size", "seq_len", "batch_size", "tokens_per_step", "max_steps",
    "optimizer.name", "optimizer.learning_rate", "schedule.kind", "schedule.warmup_steps",
    "schedule.cooldown_fraction", "schedule.cooldown_shape", "evaluation.minutes", "checkpoint.minutes",
)  # fmt: skip
"""What the plan decides; every other setting is the default of `train`."""


def write_files(plan: WeekPlan, text: str, body: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write them into `folder`. Raises E_PERMISSION, E_DISK_FULL."""
    make_folder(folder)
    contents = {
        "plano.md": f"# Plano de treino: {plan.size}\n\n```text\n{text}\n```\n",
        "treino.toml": settings_text(plan),
        "comandos.sh": "\n".join(commands(plan)) + "\n",
        "plano.json": json.dumps(body, ensure_ascii=False, indent=2) + "\n",
    }
    for name, content in contents.items():
        write_text(folder / name, content)
    return [folder / name for name in contents]


def settings_text(plan: WeekPlan) -> str:
    """treino.toml."""
    values = to_values(plan.config)
    return toml_text({key: values[key] for key in KEYS if key in values})
