"""A healthy machine to take things away from, and a tiny model folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ptbr_slm.cli.verbs import register
from ptbr_slm.config import model_config
from ptbr_slm.storage.atomic import atomic_folder
from ptbr_slm.storage.model_folder import seal_model_folder, write_model_files
from ptbr_slm.system import PACKAGES, SystemFacts, required_versions
from ptbr_slm.tokenizer import Tokenizer

HEALTHY = SystemFacts(
    python=(3, 11, 7),
    platform="Linux x86_64",
    cpu_cores=4,
    memory_bytes=30 << 30,
    folder=Path("/trabalho"),
    folder_writable=True,
    disk_free_bytes=60 * 10**9,
    packages={name: None if name == "onnxruntime-gpu" else "99.0" for name in PACKAGES},
    floors=required_versions(),
    providers=("CPUExecutionProvider",),
)


@pytest.fixture
def machine() -> Callable[..., SystemFacts]:
    """A healthy CPU machine with some facts changed; `packages` is merged, None takes one away."""

    def build(*, packages: dict[str, str | None] | None = None, **changes: Any) -> SystemFacts:
        return replace(HEALTHY, packages={**HEALTHY.packages, **(packages or {})}, **changes)

    return build


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """A nano model with random weights, as `train` would leave in final/."""
    pytest.importorskip("torch", reason="falta o torch: pip install 'ptbr-slm[train]'")
    from ptbr_slm.model import Llama

    tokenizer = Tokenizer.train(texts, vocab_size=300)
    config = model_config("nano", vocab_size=tokenizer.vocab_size, max_seq_len=64)
    folder = tmp_path_factory.mktemp("info") / "final"
    with atomic_folder(folder) as temporary:
        write_model_files(temporary, config, Llama(config).initialize(0).to_hf_weights(), tokenizer)
        seal_model_folder(temporary)
    return folder


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Done]:
    """Run `ptbr-slm ARGS` inside this process: as `cli`, without paying for a new Python each time."""
    monkeypatch.chdir(tmp_path)
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    register(app)

    def invoke(*arguments: str | Path, check: bool = False) -> Done:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert not check or result.exit_code == 0, result.stderr
        return Done(result.exit_code, result.stdout, result.stderr)

    return invoke
