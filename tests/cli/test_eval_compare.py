"""`ptbr-slm eval compare`: reached by the first word only, and what it prints."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tiny_models import write_model
from typer.testing import CliRunner

from ptbr_slm.bench.synthetic import random_weights
from ptbr_slm.cli.main import app
from ptbr_slm.config import ModelConfig
from ptbr_slm.eval.results import ModelFacts, Part, Results, TaskRecord, read_results, save_results
from ptbr_slm.eval.subject import LocalSubject
from ptbr_slm.eval.tasks.metrics import ItemResult, TaskScore
from ptbr_slm.tokenizer import Tokenizer

RUNNER = CliRunner()


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (["eval", "--help"], "Uso: ptbr-slm eval [MODELO] [OPÇÕES]"),
        (["eval", "compare", "--help"], "Uso: ptbr-slm eval compare A B [OPÇÕES]"),
        (["eval", "./compare", "--help"], "Uso: ptbr-slm eval [MODELO] [OPÇÕES]"),
        (["eval", "--limit", "3", "compare", "--help"], "Uso: ptbr-slm eval [MODELO] [OPÇÕES]"),
    ],
)
def test_the_first_word_chooses_the_verb(words, usage):
    shown = RUNNER.invoke(app, words, prog_name="ptbr-slm").output
    assert shown.startswith(usage) and shown.startswith("Uso: ptbr-slm eval compare") == (" A B " in usage)


def test_the_help_of_eval_lists_its_member():
    assert "Comandos:\n  compare  Diz qual" in RUNNER.invoke(app, ["eval", "--help"]).output


@pytest.fixture
def folders(tmp_path):
    items = tuple(ItemResult(f"genero-{n}", f"s{n}", {"acc": float(n % 2)}, n % 2, 1) for n in range(40))
    parts = (Part("genero", "Gênero do determinante e do quantificador", 40),)
    task = TaskRecord("gramatica", "Gramática", "1", "pares mínimos", "t", "d", 40,
                      (TaskScore("acc", 0.5, None),), items, parts)  # fmt: skip
    better = replace(task, items=tuple(replace(item, values={"acc": 1.0}, answer=1) for item in items))
    for name, one in (("a", task), ("b", better)):
        save_results(tmp_path / name, Results(ModelFacts(f"treino-{name}", name, 4_700_000, 64), (), (one,)))
    return str(tmp_path / "a"), str(tmp_path / "b")


def test_the_verdict_is_plain_and_fits_80_columns(folders):
    shown = RUNNER.invoke(app, ["eval", "compare", *folders])
    assert shown.exit_code == 0
    assert "B é melhor em Gramática (100,0 contra 50,0 %)." in shown.output
    assert "Gramática, por fenômeno:" in shown.output and "Onde mais diferem, em Gramática:" in shown.output
    assert "outra semente" in shown.output and max(map(len, shown.output.splitlines())) <= 80


def test_the_same_model_is_called_so_and_nothing_is_better(folders):
    shown = RUNNER.invoke(app, ["eval", "compare", folders[0], folders[0]]).output
    assert "Não se pode dizer qual é melhor" in shown and "A e B são o mesmo modelo." in shown


def test_json_has_all_of_it_and_quiet_the_verdict(folders):
    body = json.loads(RUNNER.invoke(app, ["eval", "compare", *folders, "--json"]).stdout)
    (line,) = body["lines"]
    assert (line["better"], line["pairs"], line["a"], line["b"]) == ("B", 40, 0.5, 1.0)
    assert line["p"] == line["p_holm"] < 0.001 and line["parts"][0]["name"] == "genero"
    assert RUNNER.invoke(app, ["eval", "compare", *folders, "-q"]).stdout.startswith("B é melhor em")


def test_results_that_are_not_there_are_named(tmp_path):
    shown = RUNNER.invoke(app, ["eval", "compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert shown.exit_code == 1


@pytest.fixture
def model(tmp_path, texts, monkeypatch):
    """A model that was evaluated from the current folder; its results."""
    tokenizer = Tokenizer.train(texts, 300)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, num_layers=1, num_heads=1, num_kv_heads=1,
        head_dim=16, intermediate_size=16, max_seq_len=64,
    )  # fmt: skip
    folder = write_model(tmp_path / "run" / "final", config, tokenizer, random_weights(config, 3))
    monkeypatch.chdir(tmp_path)
    with LocalSubject(folder) as subject:
        facts = ModelFacts(subject.name, subject.identity, subject.parameters, subject.context)
    return facts


def test_a_model_stands_for_its_results(model, folders, tmp_path):
    shown = RUNNER.invoke(app, ["eval", "compare", "run", folders[0]])
    assert "E_NOT_FOUND" in shown.stderr and "ptbr-slm eval run" in shown.stderr
    results = read_results(tmp_path / "a")
    save_results(tmp_path / "avaliacao" / "run", replace(results, model=model))
    assert RUNNER.invoke(app, ["eval", "compare", "run", folders[1], "-q"]).stdout.startswith("B é melhor em")
    save_results(tmp_path / "avaliacao" / "run", replace(results, model=replace(model, identity="antes")))
    shown = RUNNER.invoke(app, ["eval", "compare", "run/final", folders[1]])
    assert "E_COMPARE" in shown.stderr and "antes de uma mudança" in shown.stderr
