"""Runs that take a fraction of a second: their data, settings, command line, and what they leave."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

SETTINGS: dict[str, Any] = {
    "model_size": "nano",
    "model.num_layers": 2,
    "model.intermediate_size": 64,
    "seq_len": 16,
    "batch_size": 2,
    "grad_accum": 2,
    "max_steps": 8,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 0.01,
    "schedule.kind": "cosine",
    "evaluation.every": 0,
    "evaluation.tokens": 512,
    "evaluation.sample_tokens": 0,
    "checkpoint.every": 4,
}
"""Settings of a run, but for `data` and `output`."""


def write_texts(folder: Path, sentences: Sequence[str], documents: int = 24, seed: int = 0) -> Path:
    """A folder of small text files whose words come from `sentences`."""
    words = " ".join(sentences).split()
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(documents):
        (folder / f"{index}.txt").write_text(" ".join(draw.choices(words, k=120)) + ".\n", encoding="utf-8")
    return folder


def arguments(data: Path, output: Path, **settings: Any) -> list[str]:
    """The command line `train ...` of a run with SETTINGS and these."""
    values = {"data": str(data), "output": str(output), **SETTINGS, **settings}
    return [
        "train",
        *(part for key, value in values.items() for part in ("--set", f"{key}={json.dumps(value)}")),
    ]


def records(run: Path, event: str = "step") -> list[dict[str, Any]]:
    """The records of one kind in a run's metrics.jsonl."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["event"] == event]


def losses(run: Path) -> list[float]:
    """Of every step, nats a token."""
    return [record["loss"] for record in records(run)]


def assert_same_weights(model: Path, expected: Path, atol: float) -> None:
    """Two model folders hold the same weights within `atol`."""
    theirs = load_file(expected / "model.safetensors")
    for name, weight in load_file(model / "model.safetensors").items():
        np.testing.assert_allclose(weight, theirs[name], atol=atol, err_msg=name)
