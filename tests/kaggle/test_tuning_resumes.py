"""A tuning that a session left behind goes on in the next one, from the mounted output."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tiny_models import random_weights, write_model
from typer.testing import CliRunner

from ptbr_slm.cli.main import app
from ptbr_slm.config import ModelConfig
from ptbr_slm.kaggle.project import example_conversations
from ptbr_slm.tokenizer import Tokenizer

STEPS = 4


@pytest.fixture
def session(monkeypatch, tmp_path, texts):
    """Tune a tiny model in a new /kaggle/working: as the notebook does, and quickly."""
    tokenizer = Tokenizer.train(texts * 4, 384)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1,
        head_dim=16, intermediate_size=64, max_seq_len=128,
    )  # fmt: skip
    weights = random_weights(config, 0)

    def tune(name: str, *options: str) -> tuple[Path, int, str]:
        root = tmp_path / name
        (root / "input").mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv("PTBR_SLM_KAGGLE_ROOT", str(root))
        model = write_model(root / "working" / "runs" / "meu" / "final", config, tokenizer, weights)
        data = root / "conversas.jsonl"  # another path, another time: what counts is the content
        shutil.copyfile(example_conversations(), data)
        os.utime(data, (len(name), len(name)))
        run = root / "working" / "runs" / "conversa"
        command = [
            "tune", str(model), "--data", str(data), "-o", str(run), "--max-steps", str(STEPS),
            "--resume", "auto", "--set", "evaluation.sample_tokens=0", *options,
        ]  # fmt: skip
        done = CliRunner().invoke(app, command)
        return run, done.exit_code, done.stdout + done.stderr

    return tune


def test_a_second_session_ends_what_the_first_began_with_the_same_weights(session, tmp_path):
    whole, code, said = session("inteira")
    assert code == 0, said

    stopped, code, said = session("primeira", "--max-time", "1s", "--session-start", "2026-01-01")
    assert code == 75 and "o tempo acabou" in said, said
    at = int((stopped / "checkpoints" / "latest").read_text().strip().removeprefix("step-"))
    assert 0 < at < STEPS

    earlier = tmp_path / "segunda" / "input" / "notebooks" / "ana" / "caderno"
    earlier.parent.mkdir(parents=True)
    (tmp_path / "primeira" / "working").rename(earlier)
    run, code, said = session("segunda")
    assert code == 0 and f"Continuando do passo {at}" in said, said
    name = "final/model.safetensors"
    assert (run / name).read_bytes() == (whole / name).read_bytes()
