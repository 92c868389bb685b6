"""A tuning by adapters on a simulated T4, beside the same on the CPU; for `python -m simulated_cuda`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from adapted_models import LORA_RUN, tunable_shape
from listeners import Recorder
from safetensors.numpy import load_file
from simulated_cuda import Card
from tiny_chat import conversation_file, tiny_tokenizer
from tiny_models import write_model
from tiny_runs import losses, records

from ptbr_slm.train.run import train
from ptbr_slm.tune.config import tune_config
from ptbr_slm.tune.spec import TuneSpec


def lora(folder: Path, cards: list[Card]) -> dict[str, Any]:
    """fp32 on the CPU and on the card, and what a T4 does by itself: fp16 with GradScaler."""
    base = write_model(folder / "base", tunable_shape(), tiny_tokenizer())
    data = conversation_file(folder / "conversas.jsonl", 40)
    for name, settings in {
        "cpu": {"device": "cpu"},
        "fp32": {"device": "cuda", "precision": "fp32"},
        "fp16": {"device": "cuda"},
    }.items():
        values = {**LORA_RUN, **settings, "data": data, "output": folder / name}
        train(tune_config(base, values), Recorder(), spec=TuneSpec())
    cpu, card = (load_file(folder / name / "final" / "model.safetensors") for name in ("cpu", "fp32"))
    return {
        "losses": {name: losses(folder / name) for name in ("cpu", "fp32", "fp16")},
        "distance": max(float(np.abs(cpu[name] - card[name]).max()) for name in cpu),
        "waits": dict(Counter(wait.where for wait in cards[0].waits)),
        "scales": [record["scale"] for record in records(folder / "fp16")],
        "skipped": [record["skipped"] for record in records(folder / "fp16") if record.get("skipped")],
    }


CASES = {"lora": lora}
