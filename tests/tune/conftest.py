"""A model, conversations and text, made once; do not write into them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_tunings import tiny_base, tiny_conversations, tiny_text, tuning

from ptbr_slm.tune.config import TuneConfig


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that is tuned."""
    return tiny_base(tmp_path_factory.mktemp("modelo") / "base")


@pytest.fixture(scope="session")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 40 conversations."""
    return tiny_conversations(tmp_path_factory.mktemp("conversas") / "conversas.jsonl")


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared text for the replay."""
    return tiny_text(tmp_path_factory.mktemp("texto"))


@pytest.fixture
def settings(base: Path, conversations: Path, tmp_path: Path) -> Callable[..., TuneConfig]:
    """TuneConfig of a tiny tuning in tmp_path/run; `a__b=1` sets a.b."""

    def make(**values: object) -> TuneConfig:
        given = {"base": base, "data": conversations, "output": tmp_path / "run", **values}
        return tuning(given.pop("base"), given.pop("data"), given.pop("output"), **given)  # type: ignore[arg-type]

    return make
