"""The plans of a week that stand in examples/kaggle are what the verb writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KAGGLE = ROOT / "examples" / "kaggle"
COMMANDS = re.findall(
    r"^ptbr-slm (plan .*)$", (KAGGLE / "README.md").read_text(encoding="utf-8"), re.MULTILINE
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_plan_of_the_examples_is_what_its_command_writes(run, command, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    *words, folder = command.split()
    run(*words, "plano", check=True)
    written = {file.name: file.read_text(encoding="utf-8") for file in (tmp_path / "plano").iterdir()}
    kept = {file.name: file.read_text(encoding="utf-8") for file in (ROOT / folder).iterdir()}
    assert written == kept, f"desatualizado; rode  COLUMNS=80 ptbr-slm {command}"


def test_there_are_plans_of_two_sizes():
    assert [command.split()[-1] for command in COMMANDS] == [
        "examples/kaggle/plano-85m", "examples/kaggle/plano-160m",
    ]  # fmt: skip


def test_the_guide_says_what_the_verb_computes(run):
    guide = (ROOT / "docs" / "KAGGLE_QUICK_START.md").read_text(encoding="utf-8")
    for line in (
        run("plan", "--hours", "30", "--gpu", "t4x2", check=True).stdout.split("Recomendado")[0].splitlines()
    ):
        if (cells := re.split(r"  +", line.strip())) and cells[0] in ("85m", "160m", "400m"):
            assert f"| {' | '.join(cells)} | calculado |" in guide
