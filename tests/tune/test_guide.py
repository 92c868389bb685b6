"""docs/CONVERSAR.md: its commands run, its rows are read, its tables are those of the code."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
from tiny_models import random_weights, write_model
from tiny_runs import write_texts
from typer.testing import CliRunner

from ptbr_slm.chat.messages import Message
from ptbr_slm.cli.main import app
from ptbr_slm.cli.tune import TUNE_FLAGS
from ptbr_slm.config import ModelConfig
from ptbr_slm.data.document import REASONS as INPUT_REASONS
from ptbr_slm.data.document import DocumentCounts
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.text import number
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.tune import config as tuning
from ptbr_slm.tune.conversations import FORMATS, REASONS, detect, read_items

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "CONVERSAR.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^ *```sh\n(.*?)^ *```", PAGE, flags=re.M | re.S)
COMMANDS = [line.strip() for block in BLOCKS for line in block.splitlines() if "ptbr-slm " in line]
INLINE = re.findall(r"`(ptbr-slm [a-z][^`]*)`", PAGE)
QUICK = {
    "tune": "--max-steps 1 --valid-fraction 0 --set evaluation.sample_tokens=0",
    "eval": "--limit 4",
    "find-lr": "--steps 20 --set seq_len=128",
}
"""What makes a command of a kind take a second."""


@pytest.fixture(scope="module")
def workplace(texts, tmp_path_factory):
    """A folder with the model and the data that the page's commands name."""
    folder = tmp_path_factory.mktemp("guide")
    tokenizer = Tokenizer.train(texts * 4, 384)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1,
        head_dim=16, intermediate_size=64, max_seq_len=128,
    )  # fmt: skip
    write_model(folder / "runs" / "meu" / "final", config, tokenizer, random_weights(config, 0))
    prepare([write_texts(folder / "textos", texts)], folder / "dados", tokenizer, valid_fraction=0.2)
    (folder / "conversas.jsonl").write_bytes((ROOT / "examples" / "conversas.jsonl").read_bytes())
    row = {"prompt": "Que dia é hoje?", "chosen": "Não sei.", "rejected": "É terça."}
    (folder / "pares.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    return folder


def test_every_command_runs_in_the_order_of_the_page_and_its_programs_after_them(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("PTBR_SLM_CACHE", str(workplace / "cache"))
    assert len(COMMANDS) >= 12
    for command in COMMANDS:
        given, _, command = command.rpartition("| ")
        arguments = shlex.split(command)[1:]
        if "compare" not in arguments:
            arguments += QUICK.get(arguments[0], "").split()
        asked = shlex.split(given)[1] + "\n" if given else ""
        done = CliRunner().invoke(app, arguments, input=asked)
        assert done.exit_code == 0, (command, done.stderr)
    for program in re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S):
        exec(compile(program, "CONVERSAR.md", "exec"), {})


def test_every_command_in_a_sentence_exists_with_its_flags():
    docs = runpy.run_path(str(ROOT / "scripts" / "generate_cli_docs.py"))
    known = {" ".join(words): docs["help_of"](words) for words in docs["commands"]()}
    assert len(INLINE) >= 6
    for command in INLINE:
        words = re.match(r"ptbr-slm ((?:kaggle )?[a-z-]+)", command)
        assert words is not None and words[1] in known, command
        for flag in re.findall(r"(?<=\s)(--?[a-z][a-z-]*)", command):
            assert re.search(rf"(?<![\w-]){flag}(?![\w-])", known[words[1]]), command


def test_each_form_has_a_row_that_is_told_by_its_columns(tmp_path):
    shown = dict(re.findall(r"^`(\w+)`,.*?^```json\n(.*?)\n```", PAGE, flags=re.M | re.S))
    assert list(shown) == list(FORMATS)
    for name, row in shown.items():
        assert detect(list(json.loads(row))) == name
        (tmp_path / "a.jsonl").write_text(row, encoding="utf-8")
        counts = DocumentCounts()
        (item,) = read_items([tmp_path / "a.jsonl"], counts=counts)
        assert not counts.dropped and "<" not in str(getattr(item, "messages", ())), name
        if name == "alpaca":
            assert item.messages[0] == Message("user", "Passe para o plural.\n\nA janela está aberta.")


def test_every_reason_why_a_conversation_is_skipped_is_explained():
    section = PAGE[PAGE.index("### O que fica de fora") : PAGE.index("## Ajustar")]
    explained = [row[0] for row in re.findall(r"^\| (.*?) \| (.+) \|$", section, flags=re.M)][1:]
    assert set(explained) <= set(REASONS.values())
    own = {words for reason, words in REASONS.items() if INPUT_REASONS.get(reason) != words}
    assert own <= set(explained)
    of_files = ("bad_json", "bad_row", "not_utf8", "unknown_format", "contaminated")
    assert {REASONS[reason] for reason in of_files} <= set(explained)


def test_the_options_and_the_defaults_are_those_of_the_code():
    for flag in TUNE_FLAGS:
        assert re.search(rf"^\| .*`{flag.name}`.* \|", PAGE, flags=re.M), flag.name
    options = tuning.TuneOptions()
    assert f"| {options.epochs:g} |" in PAGE and f"| {number(options.valid_fraction, 2)} |" in PAGE
    rates = re.findall(r"^ *\| (?:até (\d+) milhões|acima disso) \| (\S+) \| (\S+) \|$", PAGE, flags=re.M)
    assert len(rates) == 4
    for most, *shown in rates:
        size = int(most or 800) * 10**6
        assert [float(rate) for rate in shown] == [
            tuning.default_learning_rate(size, method) for method in ("full", "lora")
        ]
        if most:
            assert tuning.default_learning_rate(size + 1, "full") < float(shown[0])
    assert f"até {number(tuning.LONGEST_SEQ_LEN)} tokens" in PAGE
    assert f"até {number(tuning.MOST_STEP_TOKENS)}" in PAGE and f"de {tuning.STEPS_PER_EPOCH} passos" in PAGE
    assert f"| {number(options.beta, 1)} |" in PAGE and f"| {options.nll_weight:g} |" in PAGE
    assert f"mais de {number(options.max_chosen_drop, 1)} nats" in PAGE and tuning.DPO_RATE == 0.1
    assert f"e {options.watched_answers} respostas livres" in PAGE
    assert f"em {100 * tuning.WARMUP_SHARE:g} % dos passos" in PAGE
