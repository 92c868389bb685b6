"""docs/AVALIAR.md: its commands run, and its words are those of the output."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tiny_models import random_weights, write_model
from tiny_runs import write_texts

from ptbr_slm.config import ModelConfig
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.eval.report.rows import READINGS
from ptbr_slm.tokenizer import Tokenizer

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "AVALIAR.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.M | re.S)
    for line in block.splitlines()
    if line.startswith("ptbr-slm ")
]
TINY = (
    "--set model.num_layers=1 --set model.intermediate_size=64 --model-size nano --seq-len 64 --batch-size 2 "
    "--max-steps 2"
)
"""What makes a training of a command take a second."""


@pytest.fixture(scope="module")
def workplace(texts, tmp_path_factory):
    """A folder with the models and the data that the page's commands name."""
    folder = tmp_path_factory.mktemp("guide")
    tokenizer = Tokenizer.train(texts * 4, 384)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1,
        head_dim=16, intermediate_size=48, max_seq_len=128,
    )  # fmt: skip
    for seed, name in enumerate(("meu", "outro")):
        write_model(folder / "runs" / name / "final", config, tokenizer, random_weights(config, seed))
    prepare([write_texts(folder / "textos", texts)], folder / "dados", tokenizer, valid_fraction=0.2)
    return folder


def test_every_command_runs_in_the_order_of_the_page(cli, workplace):
    environment = {"PTBR_SLM_CACHE": str(workplace / "cache"), "HF_HUB_OFFLINE": "1"}
    assert len(COMMANDS) >= 6
    for command in [*COMMANDS[:1], COMMANDS[0].replace("meu", "outro"), *COMMANDS[1:]]:
        arguments = shlex.split(command)[1:]
        if arguments[0] == "train":
            arguments += TINY.split()
        elif "compare" not in arguments and "--list" not in arguments and "--limit" not in arguments:
            arguments += ["--limit", "4"]
        done = cli(*arguments, env=environment, cwd=workplace)
        assert done.returncode == 0, (command, done.stderr)
    assert (workplace / "avaliacao" / "meu" / "avaliacao.html").is_file()
    assert '"event": "tasks"' in (workplace / "runs" / "novo" / "metrics.jsonl").read_text(encoding="utf-8")


def test_the_words_of_the_last_column_are_explained():
    for word in READINGS:
        assert f"| `{word}` |" in PAGE
