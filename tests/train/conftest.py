"""A tiny corpus, prepared once, and the settings of a tiny run."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from listeners import Recorder
from ranks import run_ranks
from tiny_runs import SETTINGS, arguments, write_texts

from ptbr_slm.data.pipeline import prepare
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.storage.manifest import sha256_file
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.config import TrainConfig
from ptbr_slm.train.config_file import from_values


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


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


@pytest.fixture(scope="session")
def better(tmp_path_factory: pytest.TempPathFactory, texts: list[str], tokenizer_file: Path) -> PreparedData:
    """Other text of the same tokenizer."""
    folder = tmp_path_factory.mktemp("better")
    write_texts(folder / "texts", texts, documents=6, seed=9)
    return prepare([folder / "texts"], folder / "data", Tokenizer.load(tokenizer_file), valid_fraction=0.0)


@pytest.fixture
def settings(prepared: PreparedData, tmp_path: Path) -> Callable[..., TrainConfig]:
    """TrainConfig of a tiny run in tmp_path/run; give dotted keys to change it."""

    def make(values: Mapping[str, Any] | None = None) -> TrainConfig:
        return from_values(
            {"data": prepared.folder, "output": tmp_path / "run", **SETTINGS, **(values or {})}
        )

    return make


@pytest.fixture
def train_arguments(prepared: PreparedData) -> Callable[..., list[str]]:
    """The command line of a tiny run, for a real process."""

    return functools.partial(arguments, prepared.folder)


@pytest.fixture(scope="session")
def start_two() -> Callable[..., str]:
    """Run a script as two ranks, as torchrun would on one machine; their stderr."""

    def start(script: str | Path, *arguments: str | Path, env: Mapping[str, str] | None = None) -> str:
        return run_ranks([sys.executable, script, *arguments], env=env)

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
