"""`ptbr-slm eval compare`: reached by the first word only."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from ptbr_slm.cli.main import app

RUNNER = CliRunner()


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (["eval", "--help"], "Uso: ptbr-slm eval [OPÇÕES] {MODELO}"),
        (["eval", "compare", "--help"], "Uso: ptbr-slm eval compare [OPÇÕES] {A} {B}"),
        (["eval", "./compare", "--help"], "Uso: ptbr-slm eval [OPÇÕES] {MODELO}"),
        (["eval", "--limit", "3", "compare", "--help"], "Uso: ptbr-slm eval [OPÇÕES] {MODELO}"),
    ],
)
def test_the_first_word_chooses_the_verb(words, usage):
    shown = RUNNER.invoke(app, words, prog_name="ptbr-slm").output
    assert shown.startswith(usage)


def test_the_help_of_eval_lists_its_member():
    assert "Comandos:\n  compare  Diz qual" in RUNNER.invoke(app, ["eval", "--help"]).output


def test_results_that_are_not_there_are_named(tmp_path):
    shown = RUNNER.invoke(app, ["eval", "compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert shown.exit_code == 1
