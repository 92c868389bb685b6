"""Fixtures for every area, and the line at the end that counts the skips."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import ptbr_slm  # noqa: F401  (switches telemetry off before a test imports onnxruntime)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_VNNI"  # before torch: a CPU with bf16 trains as any other
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # with `&` in a script; what tests start inherits it
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).resolve().parent.parent

TEXTS = [
    "O rio corre devagar entre as pedras, e a manhã de domingo começa com cheiro de café.",
    "Maria abriu a janela, olhou a rua molhada e decidiu que não iria à feira naquele dia.",
    "As crianças brincavam no quintal enquanto o avô contava histórias do sertão e do mar.",
    "A biblioteca da cidade ficou aberta até tarde; havia silêncio, lâmpadas e muitos livros.",
    "Ninguém sabia de onde vinha a música, mas todos pararam para escutar o violão na praça.",
    "O trem partiu às seis horas, cheio de trabalhadores, estudantes e vendedores de pão.",
]
"""Portuguese of our own, for tokenizers and tiny models."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first. Two workers take file after file (xdist's loadscope, which by itself gives
    out the files with the fewest tests last); with the quick ones at the end, both end at the same time.
    """
    slow = {item.path for item in items if any(map(item.get_closest_marker, ("slow", "browser")))}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Six Portuguese sentences."""
    return TEXTS


@pytest.fixture(scope="session")
def support_environment() -> dict[str, str]:
    """The environment of a process that imports from tests/support."""
    folders = [str(ROOT / "tests" / "support"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, folders))}


@pytest.fixture(scope="session")
def simulated_card() -> None:
    """Skip where no card can be simulated; not in our own CI, whose PyTorch is the right one."""
    from simulated_cuda.guard import why_not

    if reason := why_not():
        ours = "CI" in os.environ and sys.platform == "linux"
        (pytest.fail if ours else pytest.skip)(reason)


@pytest.fixture(scope="session")
def play_on_a_card(tmp_path_factory, support_environment, simulated_card) -> Callable[[Path], dict[str, Any]]:
    """Plays the cases of a file on a simulated T4, all in one process: what each found, by its name."""

    def play(cases: Path) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("card")
        command = [sys.executable, "-m", "simulated_cuda", str(cases), str(folder)]
        subprocess.run(command, env=support_environment, check=True, timeout=280)
        return {file.stem: json.loads(file.read_bytes()) for file in folder.glob("*.json")}

    return play


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `ptbr-slm ARGS` as a real process in an empty folder; output captured as text."""

    def run(*arguments: str | Path, check: bool = False, timeout: float = 120, **keywords):
        environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", **keywords.pop("env", {})}
        return subprocess.run(
            [sys.executable, "-m", "ptbr_slm", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=check,
            timeout=timeout,
            cwd=keywords.pop("cwd", tmp_path),
            env=environment,
            **keywords,
        )

    return run


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Done]:
    """Run `ptbr-slm ARGS` inside this process: as `cli`, without paying for a new Python each time."""
    from ptbr_slm.cli.main import app

    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str | Path, check: bool = False, input: str | None = None) -> Done:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=input)
        assert not check or result.exit_code == 0, result.stderr
        return Done(result.exit_code, result.stdout, result.stderr)

    return invoke


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the skips in one line, so that none goes unseen."""
    skipped = len(terminalreporter.stats.get("skipped", []))
    terminalreporter.write_line(f"testes pulados: {skipped} (as razões e o que instalar estão acima)")
