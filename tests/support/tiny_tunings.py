"""Tunings that take a second: the model, its conversations and settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_chat import TEXTS, conversation_file, tiny_tokenizer
from tiny_models import random_weights, write_model
from tiny_runs import write_texts

from ptbr_slm.config import ModelConfig
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.tune.config import TuneConfig, tune_config

SETTINGS: dict[str, Any] = {
    "seq_len": 64,
    "batch_size": 2,
    "grad_accum": 2,
    "max_steps": 6,
    "optimizer.learning_rate": 0.003,
    "evaluation.every": 0,
    "evaluation.tokens": 512,
    "evaluation.sample_tokens": 0,
    "checkpoint.every": 3,
    "tune.valid_fraction": 0.2,
}
"""Settings of a tuning, but for `data` and `output`."""


def tiny_base(folder: Path, hidden_size: int = 32, seed: int = 0) -> Path:
    """A model of 2 layers that has learnt nothing, with the chat's tokens in its vocabulary."""
    tokenizer = tiny_tokenizer()
    assert tokenizer.bos_id is not None and tokenizer.eos_id is not None
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=hidden_size,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        head_dim=hidden_size // 2,
        intermediate_size=2 * hidden_size,
        max_seq_len=128,
        bos_token_id=tokenizer.bos_id,
        eos_token_ids=(tokenizer.eos_id,),
        pad_token_id=tokenizer.pad_id,
    )
    return write_model(folder, config, tokenizer, random_weights(config, seed))


def tiny_conversations(file: Path, count: int = 40) -> Path:
    """Conversations with answers of very unequal lengths."""
    return conversation_file(file, count)


def tiny_text(folder: Path) -> Path:
    """Prepared text for the replay; a fifth is held out."""
    texts = write_texts(folder / "textos", TEXTS, documents=30)
    return prepare([texts], folder / "dados", tiny_tokenizer(), valid_fraction=0.2).folder


def tuning(base: Path, data: Path, output: Path, **settings: Any) -> TuneConfig:
    """The settings; a dot in a key is written as two underscores."""
    given = {key.replace("__", "."): value for key, value in settings.items()}
    return tune_config(base, {"data": data, "output": output, **SETTINGS, **given})


def tune_arguments(base: Path, data: Path, output: Path, **settings: Any) -> list[str]:
    """The command line `tune ...` of the same, for a real process."""
    given = {key.replace("__", "."): value for key, value in settings.items()}
    values = {**SETTINGS, **given}
    sets = (part for key, value in values.items() for part in ("--set", f"{key}={json.dumps(value)}"))
    return ["tune", str(base), "--data", str(data), "-o", str(output), *sets]
