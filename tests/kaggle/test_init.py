"""`ptbr-slm kaggle init`: what `kaggle kernels push` will read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ptbr_slm.cli import kaggle as verb

ROOT = Path(__file__).resolve().parents[2]


def init(*arguments: str | Path):
    app = typer.Typer()
    app.callback()(lambda: None)
    verb.register(app)
    return CliRunner().invoke(app, ["kaggle", "init", *map(str, arguments)], env={"KAGGLE_USERNAME": ""})


def test_the_metadata_ask_for_two_t4s_and_the_notebook_is_the_one_of_examples(tmp_path):
    done = init(tmp_path / "novo", "--user", "ana", "--title", "Meu modelo de português")
    assert done.exit_code == 0, done.output
    metadata = json.loads((tmp_path / "novo" / "kernel-metadata.json").read_text())
    assert metadata == {
        "id": "ana/meu-modelo-de-portugues",
        "title": "Meu modelo de português",
        "code_file": "treinar_no_kaggle.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": True,
        "machine_shape": "NvidiaTeslaT4",
        "dataset_sources": [],
        "competition_sources": [],
        "kernel_sources": [],
        "model_sources": [],
    }
    notebook = tmp_path / "novo" / metadata["code_file"]
    assert notebook.read_bytes() == (ROOT / "examples" / "kaggle" / notebook.name).read_bytes()
    conversations = tmp_path / "novo" / "conversas.jsonl"
    assert conversations.read_bytes() == (ROOT / "examples" / conversations.name).read_bytes()
    assert f"kaggle kernels push -p {tmp_path / 'novo'}" in done.stdout
    assert '"kernel_sources": ["ana/meu-modelo-de-portugues"]' in done.stdout  # for the second session


def test_wheels_turn_the_internet_off_and_an_earlier_output_is_mounted(tmp_path):
    options = ["--wheels", "ana/rodas", "--dataset", "bia/textos", "--continue-from", "ana/treinar-ptbr-slm"]
    done = init(tmp_path, "--user", "ana", *options, "--json")
    metadata = json.loads(done.stdout)["metadata"]
    assert metadata["enable_internet"] is False and metadata["dataset_sources"] == ["bia/textos", "ana/rodas"]
    assert metadata["kernel_sources"] == ["ana/treinar-ptbr-slm"]


@pytest.mark.parametrize("name", ["kernel-metadata.json", "treinar_no_kaggle.ipynb", "conversas.jsonl"])
def test_what_somebody_may_have_edited_is_never_overwritten(name, tmp_path):
    (tmp_path / name).write_text("meu")
    done = init(tmp_path, "--user", "ana")
    assert done.exit_code == 1 and "Erro [E_EXISTS]" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "meu"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--user", "ana maria"], "--user"),
        (["--user", "ana", "--title", "oi"], "--title"),
        (["--user", "ana", "--title", "¿¿¿¿¿¿"], "--title"),
        (["--user", "ana", "--dataset", "textos"], "--dataset"),
        (["--user", "ana", "--continue-from", "https://kaggle.com/ana/x"], "--continue-from"),
    ],
)
def test_what_kaggle_would_refuse_is_refused_here(options, named, tmp_path):
    done = init(tmp_path / "x", *options)
    assert done.exit_code == 2 and "Erro [E_USAGE]" in done.stderr and named in done.stderr
    assert not (tmp_path / "x").exists()


def test_the_user_name_can_come_from_the_environment_that_the_kaggle_command_reads(tmp_path, monkeypatch):
    app = typer.Typer()
    app.callback()(lambda: None)
    verb.register(app)
    done = CliRunner().invoke(app, ["kaggle", "init", str(tmp_path)], env={"KAGGLE_USERNAME": "bia"})
    assert (
        done.exit_code == 0
        and '"id": "bia/treinar-ptbr-slm"' in (tmp_path / "kernel-metadata.json").read_text()
    )
