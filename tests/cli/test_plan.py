"""`plan`: what it prints, what it writes, and that `train` takes it."""

from __future__ import annotations

import json
import re
import textwrap
import tomllib
from pathlib import Path

import pytest
from commands import refusal

from ptbr_slm.data.pipeline import prepare
from ptbr_slm.errors import Exit
from ptbr_slm.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "plan",
    "--hours",
    "0.2",
    "--gpu",
    "cpu",
    "--sessions",
    "5m",
    "--model-size",
    "nano",
    "--seq-len",
    "32",
)


@pytest.fixture
def data(tmp_path: Path, texts: list[str]) -> Path:
    """Prepared data in `dados`."""
    file = tmp_path / "textos.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    prepare([file], tmp_path / "dados", Tokenizer.train(texts, vocab_size=300))
    return Path("dados")


def test_without_a_size_three_are_compared_and_one_is_recommended(run):
    done = run("plan", "--hours", "30", check=True)
    for size in ("85m", "160m", "400m"):
        assert f"\n{size} " in done.stdout
    assert "Recomendado: 160m" in done.stdout and "Plano: 160m" in done.stdout
    assert "calculado" in done.stdout and "3 sessões" in done.stdout
    body = json.loads(run("plan", "--hours", "30", "--json", check=True).stdout)
    assert body["model_size"] == "160m" and len(body["compared"]) == 3
    assert body["speed_basis"] == "computed"
    assert body["tokens"] == body["tokens_per_step"] * body["max_steps"]


def test_the_settings_it_writes_are_those_that_it_tells_and_train_takes_them(run, data):
    body = json.loads(run(*SMALL, "--data", data, "-o", "plano", "--json", check=True).stdout)
    assert sorted(file.name for file in Path("plano").iterdir()) == [
        "comandos.sh", "plano.json", "plano.md", "treino.toml",
    ]  # fmt: skip
    settings = tomllib.loads(Path("plano/treino.toml").read_text(encoding="utf-8"))
    assert settings["max_steps"] == body["max_steps"]
    dry = run(
        "train", "--config", "plano/treino.toml", "--dry-run", "--json", "--set", "device=cpu", check=True
    )
    taken = json.loads(dry.stdout)
    for key in ("batch_size", "grad_accum", "tokens_per_step", "max_steps", "parameters", "learning_rate"):
        assert taken[key] == body[key], key
    assert body["epochs"] == body["tokens"] / taken["train_tokens"]


def test_the_page_holds_what_is_printed(run, data):
    printed = run(*SMALL, "--data", data, "-o", "plano", check=True).stdout
    page = Path("plano/plano.md").read_text(encoding="utf-8")
    assert page.split("```text\n")[1].split("\n```")[0] == printed.split("\n\nGravado em")[0]


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (("--hours", "0"), "--hours"),
        (("--hours", "30", "--sessions", "manhã"), "--sessions"),
        (("--hours", "30", "--gpu", "rtx9090"), "--gpu"),
        (("--hours", "30", "--model-size", "gigante"), "--model-size"),
    ],
)
def test_what_makes_no_plan_is_refused(run, arguments, where):
    done = run("plan", *arguments)
    assert done.returncode in (Exit.ERROR, Exit.USAGE) and where in done.stderr


def test_too_few_tokens_a_mostly_idle_step_and_too_often_read_texts_are_warned_of(run, data):
    large = run(
        "plan", "--hours", "5", "--model-size", "400m", "--tokens-per-step", "8192", check=True
    ).stdout
    assert "tokens por parâmetro são muito menos que 20" in " ".join(large.split())
    assert "vão em trocas entre as placas" in " ".join(large.split())
    often = json.loads(run(*SMALL, "--data", data, "--json", check=True).stdout)["warnings"]
    assert len(often) == 1 and "seriam lidos" in often[0]
    assert json.loads(run("plan", "--hours", "30", "--json", check=True).stdout)["warnings"] == []


def test_the_notebook_knows_the_variables_that_the_plan_names(run):
    printed = run("plan", "--hours", "30", "--model-size", "85m", check=True).stdout
    body = json.loads(run("plan", "--hours", "30", "--model-size", "85m", "--json", check=True).stdout)
    block = printed.split("No caderno do Kaggle, na primeira célula de código\n\n")[1]
    given: dict[str, object] = {}
    exec(textwrap.dedent(block), given)
    notebook = (ROOT / "examples" / "kaggle" / "treinar_no_kaggle.py").read_text(encoding="utf-8")
    for name in given.keys() - {"__builtins__"}:
        assert re.search(rf"^{name} = ", notebook, re.MULTILINE), name
    assert given["BATCH_SIZE"] * given["GRAD_ACCUM"] * given["SEQ_LEN"] == body["tokens_per_step"]
    assert given["MAX_STEPS"] == body["max_steps"]
    assert "No caderno" not in run("plan", "--hours", "30", "--gpu", "l4", check=True).stdout


def test_a_model_too_narrow_for_four_bits_is_exported_in_eight(run):
    assert (
        "--precision int8"
        in run("plan", "--hours", "1", "--gpu", "cpu", "--model-size", "nano", check=True).stdout
    )
    assert "--precision int4" in run("plan", "--hours", "30", "--model-size", "85m", check=True).stdout


def test_every_command_of_the_plan_is_one_that_the_program_takes(run):
    run("plan", "--hours", "30", "--model-size", "85m", "-o", "plano", check=True)
    lines = [
        line for line in Path("plano/comandos.sh").read_text().splitlines() if line.startswith("ptbr-slm")
    ]
    assert len(lines) == 10
    for line in lines:
        assert refusal(line) is None, line
    cooldowns = [line.split("--cooldown ")[1] for line in lines if line.startswith("ptbr-slm train")]
    assert cooldowns == ["average", "average", "session"]
