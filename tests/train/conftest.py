"""A tiny corpus, prepared once, and the settings of a tiny run."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from listeners import Recorder

from ptbr_slm.data.pipeline import prepare
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.storage.manifest import sha256_file
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.config import TrainConfig
from ptbr_slm.train.config_file import from_values

TINY = {
    "model_size": "nano",
    "model.num_layers": 2,
    "model.intermediate_size": 64,
    "seq_len": 16,
    "batch_size": 2,
    "grad_accum": 2,
    "max_steps": 8,
    "optimizer.learning_rate": 0.01,
    "evaluation.every": 0,
    "evaluation.tokens": 512,
    "evaluation.sample_tokens": 0,
    "checkpoint.every": 4,
}
"""The shape and course of a run that takes a fraction of a second."""


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


def write_texts(folder: Path, sentences: list[str], documents: int = 24, seed: int = 0) -> Path:
    """A folder of small text files whose words come from `sentences`."""
    words = " ".join(sentences).split()
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(documents):
        (folder / f"{index}.txt").write_text(" ".join(draw.choices(words, k=120)) + ".\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """Portuguese .txt files."""
    return write_texts(tmp_path_factory.mktemp("corpus"), texts)


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """A tokenizer of 300 tokens."""
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    file.write_text(Tokenizer.train(texts, 300).to_json(), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, corpus: Path, tokenizer_file: Path) -> PreparedData:
    """The corpus, prepared; do not write into it."""
    folder = tmp_path_factory.mktemp("prepared") / "data"
    return prepare([corpus], folder, Tokenizer.load(tokenizer_file), valid_fraction=0.2)


@pytest.fixture
def settings(prepared: PreparedData, tmp_path: Path) -> Callable[..., TrainConfig]:
    """TrainConfig of a tiny run in tmp_path/run; give dotted keys to change it."""

    def make(values: Mapping[str, Any] | None = None) -> TrainConfig:
        return from_values({"data": prepared.folder, "output": tmp_path / "run", **TINY, **(values or {})})

    return make


@pytest.fixture
def train_arguments(prepared: PreparedData) -> Callable[..., list[str]]:
    """The command line of a tiny run, for a real process."""

    def make(output: Path, **values: Any) -> list[str]:
        known = {"data": str(prepared.folder), "output": str(output), **TINY, **values}
        return [
            "train",
            *(part for key, value in known.items() for part in ("--set", f"{key}={json.dumps(value)}")),
        ]

    return make


@pytest.fixture(scope="session")
def start_two() -> Callable[..., str]:
    """Run a script as two ranks, as torchrun would on one machine; what they said on stderr."""

    def start(script: str | Path, *arguments: str | Path, env: Mapping[str, str] | None = None) -> str:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = str(listener.getsockname()[1])
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1",
                  "GLOO_SOCKET_IFNAME": "lo", **(env or {})}  # fmt: skip
        ranks = [
            subprocess.Popen(
                [sys.executable, script, *arguments],
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in (0, 1)
        ]
        return "\n".join(rank.communicate(timeout=120)[1] for rank in ranks)

    return start


@pytest.fixture(scope="session")
def no_pickle() -> Callable[[Path], dict[str, str]]:
    """Variables for processes that cannot pickle; an attempt stands in the log (tests/support/no_pickle)."""
    site = Path(__file__).parents[1] / "support" / "no_pickle"
    paths = [str(site), os.environ.get("PYTHONPATH", "")]
    return lambda log: {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PTBR_SLM_PICKLE_LOG": str(log),
    }


@pytest.fixture
def weights() -> Callable[[Path], str]:
    """sha256 of a model folder's weights."""
    return lambda model: sha256_file(model / "model.safetensors")


@pytest.fixture
def recorder() -> Recorder:
    """A fresh listener."""
    return Recorder()
