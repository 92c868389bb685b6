"""A tokenizer, prepared data with a held-out part, and a small model folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import write_model

from ptbr_slm.bench.synthetic import random_weights
from ptbr_slm.config import ModelConfig
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer(texts) -> Tokenizer:
    return Tokenizer.train(texts * 4, 400)


@pytest.fixture(scope="session")
def prepared(tokenizer, texts, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("dados")
    for number in range(60):
        text = f"Texto {number}. " + " ".join(texts[(number + i) % len(texts)] for i in range(6))
        (root / f"{number}.txt").write_text(text, encoding="utf-8")
    prepare([root], root / "prontos", tokenizer, valid_fraction=0.2)
    return root / "prontos"


@pytest.fixture
def model(tokenizer, tmp_path) -> ModelFolder:
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=64, num_layers=1, num_heads=4, num_kv_heads=2,
        head_dim=16, intermediate_size=96, max_seq_len=80,
    )  # fmt: skip
    return ModelFolder(write_model(tmp_path / "run" / "final", config, tokenizer, random_weights(config, 3)))
