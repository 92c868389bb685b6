"""Real trainings whose log breaks: the reader leaves, the disk is full, the descriptor is closed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptbr_slm.errors import Exit

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full só existe no Linux")
STEPS = 12
SPEAKS = {"max_steps": STEPS, "evaluation.every": 1}
"""A line a step on stderr too: each evaluation."""


@pytest.fixture
def start(train_arguments: Callable[..., list[str]], tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start `ptbr-slm train ... REDIRECTION` in a shell."""

    def run(redirection: str, *more: str, **values: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ptbr_slm", *train_arguments(tmp_path / "run", **(SPEAKS | values))]
        return subprocess.Popen(
            ["sh", "-c", f'exec "$@" {redirection}', "sh", *command, *more],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    return run


def whole(run: Path) -> bool:
    """Whether the run came to its end."""
    final = run / "final" / "manifest.json"
    return final.is_file() and json.loads(final.read_text())["steps"] == STEPS


def test_train_piped_with_its_errors_into_head_trains_on_to_the_end(start, tmp_path):
    process = start("2>&1")
    assert process.stdout.readline()
    process.stdout.close()  # `| head -1`
    assert process.wait(150) == Exit.PIPE and whole(tmp_path / "run")


def test_train_json_into_head_trains_on_to_the_end(start, tmp_path):
    process = start("", "--json")
    assert json.loads(process.stdout.readline())["event"] == "start"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(150) == Exit.PIPE and whole(tmp_path / "run")


@pytest.mark.parametrize("redirection", ["2> /dev/full", pytest.param("2>&-", marks=pytest.mark.slow)])
def test_a_training_without_its_log_is_a_training(start, tmp_path, redirection):
    process = start(redirection)
    out, _ = process.communicate(timeout=150)
    assert process.returncode == 0 and out.startswith("Treino completo") and whole(tmp_path / "run")


@pytest.mark.parametrize(
    ("redirection", "code", "exit_code"),
    [
        pytest.param("> /dev/full", "E_DISK_FULL", Exit.RESOURCE, marks=pytest.mark.slow),
        (">&-", "E_OUTPUT", Exit.ERROR),
    ],
)
def test_a_training_whose_result_did_not_arrive_is_saved_and_says_so(
    start, tmp_path, redirection, code, exit_code
):
    process = start(redirection, "--json")
    _, errors = process.communicate(timeout=150)
    assert process.returncode == exit_code and f"[{code}]" in errors and whole(tmp_path / "run")


@pytest.mark.slow
def test_two_ranks_train_on_without_their_log(start, tmp_path):
    process = start("2>&1", "--json", ranks=2)
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(150) == Exit.PIPE and whole(tmp_path / "run")
