"""`ptbr-slm tune` as a user types it: what it prints, and what it says of bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from chat_models import write_foreign
from tiny_chat import TEXTS, turns, write_lines
from tiny_models import random_weights, write_model
from tiny_tunings import tune_arguments

from ptbr_slm.config import ModelConfig
from ptbr_slm.storage.model_folder import ModelFolder

QUESTION, PLANTED = "Oi, tudo bem?", "Qual é o maior rio que corta o município de Santa Rita do Passa Quatro?"


@pytest.fixture
def tune(run, base, conversations):
    """Run the command with the tiny settings; a dot in a key is written as two underscores."""

    def invoke(*flags, model=base, data=conversations, output="run", **settings):
        return run(*tune_arguments(model, data, Path(output), **settings), *flags)

    return invoke


def lines(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_whole_run_and_the_same_command_again(tune, text, tmp_path):
    values = {"tune__replay": 0.2, "tune__replay_data": str(text), "evaluation__every": 3}
    done = tune(**values)
    assert done.returncode == 0 and "Treino completo: 6 passos" in done.stdout, done.stderr
    assert "ptbr-slm chat run/final" in done.stdout
    assert "conversas para treinar" in done.stderr and "no texto do pré-treino" in done.stderr
    ModelFolder.open(tmp_path / "run" / "final")
    again = tune(**values)
    assert again.returncode == 0 and "Continuando do passo 6" in again.stderr


def test_json_prints_only_json_and_quiet_only_the_model(tune):
    events = [line["event"] for line in lines(tune("--json"))]
    assert events[0] == "conversations" and events[-1] == "done" and events.count("step") == 6
    assert tune("-q", output="outro").stdout.split() == ["outro/final"]


def test_a_dry_run_writes_nothing_and_counts_sequences_and_epochs(tune, tmp_path):
    (found,) = [line for line in lines(tune("--dry-run", "--json")) if line["event"] == "plan"]
    assert found["max_steps"] == 6 and found["tokens_per_step"] == 256 and found["epochs"] > 0
    assert "sequências por época" in tune("--dry-run").stdout
    assert not (tmp_path / "run").exists()


def test_find_lr_tries_the_tuning(run, base, conversations, tmp_path):
    sizes = ("--seq-len", 64, "--batch-size", 2, "--grad-accum", 2)
    done = run("find-lr", "--tune", base, "--data", conversations, "--steps", 12, "--json", *sizes)
    (found,) = lines(done)
    assert found["tokens_per_step"] == 256 and 1e-6 < found["learning_rate"] < 1
    assert not list(tmp_path.iterdir())


def test_the_settings_that_were_used_read_back_to_the_same_run(run, tune, base, tmp_path):
    tune()
    again = run("tune", base, "--config", tmp_path / "run" / "config.resolved.toml", "--json")
    assert again.returncode == 0 and lines(again)[-1]["step"] == 6, again.stdout


def test_skipped_rows_and_a_planted_evaluation_item_are_named(tune, tmp_path):
    rows = [{"messages": turns(f"{QUESTION} {n}", f"Tudo, {n}.")} for n in range(8)]
    rows += [
        {"messages": turns("Só pergunta")},
        {"messages": []},
        {"messages": [{"role": "robô", "content": "bip"}]},
        {"messages": turns(f"{QUESTION} 1", "Tudo, 1.")},
        {"messages": turns(PLANTED, "Não sei.")},
        {"messages": turns("palavra " * 60, "longa")},
    ]
    items = write_lines(tmp_path / "itens.jsonl", [{"text": PLANTED}])
    data = write_lines(tmp_path / "c.jsonl", rows)
    done = tune("--evaluation-set", str(items), data=data)
    assert done.returncode == 0, done.stderr
    for words in ("sem resposta do assistente", "sem mensagens", "papel que não é", "cópia exata",
                  "repete um conjunto de avaliação", "a última pergunta e a resposta não cabem"):  # fmt: skip
        assert f"1 × {words}" in done.stderr, done.stderr


def test_one_conversation_is_enough(tune, tmp_path):
    done = tune(data=write_lines(tmp_path / "uma.jsonl", [{"messages": turns("Oi", "Olá!")}]))
    assert done.returncode == 0 and "1 conversa para treinar" in done.stderr
    assert "não têm parte de validação" in done.stderr


@pytest.mark.parametrize(
    ("rows", "code", "words"),
    [
        ([], "E_DATA_EMPTY", "Cada linha precisa de mensagens"),
        ([{"messages": turns("Só pergunta")}], "E_DATA_EMPTY", "Cada linha precisa de mensagens"),
        ([{"messages": turns("a " * 200, "b " * 200)}], "E_DATA_EMPTY", "--seq-len maior que 64"),
        ([{"colunas": 1, "estranhas": 2}], "E_DATA_FORMAT", "Use uma coluna messages"),
    ],
)
def test_data_that_cannot_be_used_leave_nothing_and_say_what_to_do(tune, tmp_path, rows, code, words):
    data = write_lines(tmp_path / "c.jsonl", rows) if rows else tmp_path / "c.jsonl"
    data.touch()
    done = tune(data=data)
    head, where, hint = done.stderr.strip().splitlines()[-3:]
    assert code in head and str(data) in where and words in hint, done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--replay", "0.1"), "E_USAGE", "--replay 0.1 --replay-data dados"),
        (("--set", "seq_len=4096"), "E_SEQ_LEN", "Use --seq-len 128"),
        (("--set", "tune.metodo=full"), "E_CONFIG", "tune.method"),
        (("--set", "tune.method=qlora"), "E_CONFIG", "tune.method"),
        (("--epochs", "0"), "E_CONFIG", "tune.epochs"),
        (("--set", "data.document_mask=false"), "E_CONFIG", "Tire data.document_mask"),
        (("--replay", "0.1", "--replay-data", "."), "E_NOT_FOUND", "data prepare"),
    ],
)
def test_settings_are_refused_before_anything_is_read(tune, tmp_path, flags, code, words):
    done = tune(*flags)
    assert done.returncode and code in done.stderr, done.stderr
    assert words in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_a_text_of_another_tokenizer_is_refused(tune, text, tmp_path):
    from ptbr_slm.data.pipeline import prepare
    from ptbr_slm.tokenizer import Tokenizer

    (tmp_path / "t.txt").write_text(" ".join(TEXTS * 20), encoding="utf-8")
    other = prepare(
        [tmp_path / "t.txt"], tmp_path / "dados", Tokenizer.train(["Outra coisa bem diferente"], 300)
    )
    done = tune("--replay", "0.1", "--replay-data", str(other.folder))
    assert "E_TOKENIZER_MISMATCH" in done.stderr and not (tmp_path / "run").exists()


# Models from elsewhere.


def without_template(base, folder):
    shutil.copytree(base, folder)
    (folder / "manifest.json").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def foreign_model(path, style):
    """A random model with the tokenizer and the template of `STYLES`."""
    folder = write_foreign(path, style, TEXTS)
    tokenizer = folder.tokenizer
    names = folder.parse("tokenizer_config.json")
    begin, end = names["bos_token"], names["eos_token"]
    shape = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1,
        head_dim=16, intermediate_size=48, max_seq_len=128, bos_token_id=tokenizer.token_id(begin),
        eos_token_ids=(tokenizer.token_id(end),), tie_embeddings=False,
    )  # fmt: skip
    companions = {name: (folder.path / name).read_bytes() for name in ("tokenizer_config.json",)}
    shutil.rmtree(folder.path)
    write_model(folder.path, shape, tokenizer, random_weights(shape))
    (folder.path / "manifest.json").unlink()
    for name, content in companions.items():
        (folder.path / name).write_bytes(content)
    return ModelFolder(path)


def test_a_model_without_a_template_learns_chatml_and_carries_it(tune, base, tmp_path):
    done = tune(model=without_template(base, tmp_path / "sem"))
    assert done.returncode == 0, done.stderr
    final = ModelFolder.open(tmp_path / "run" / "final")
    assert final.chat_template == ModelFolder(base).chat_template
    assert final.tokenizer.token_id("<|im_end|>") in final.config.eos_token_ids


def test_a_vocabulary_without_tokens_for_a_conversation_learns_the_plain_form(tune, tmp_path):
    folder = foreign_model(tmp_path / "alheio", "alpaca")
    (folder.path / "tokenizer_config.json").unlink()
    done = tune(model=folder.path)
    assert done.returncode == 0, done.stderr
    final = ModelFolder.open(tmp_path / "run" / "final")
    assert "<|assistant|>" in final.chat_template
    assert final.config.eos_token_ids == folder.config.eos_token_ids


@pytest.mark.parametrize("style", ["llama3", "zephyr"])
def test_a_foreign_folder_is_tuned_in_its_own_form(tune, tmp_path, style):
    folder = foreign_model(tmp_path / "alheio", style)
    done = tune(model=folder.path)
    assert done.returncode == 0, done.stderr
    final = ModelFolder.open(tmp_path / "run" / "final")
    assert final.chat_template == ModelFolder(folder.path).chat_template
    ends = {"llama3": "<|eot_id|>", "zephyr": "</s>"}[style]
    assert final.tokenizer.token_id(ends) in final.config.eos_token_ids
