"""`ptbr-slm chat` through a pipe: a message or a command a line, JSON lines, saved files, wrong input."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ptbr_slm_export import export_model
from tiny_models import random_weights, write_model
from typer.testing import CliRunner

from ptbr_slm.cli.chat import chat
from ptbr_slm.cli.chat_file import ConversationFile
from ptbr_slm.cli.chat_session import ChatSession
from ptbr_slm.cli.main import app
from ptbr_slm.cli.output import Mode, Output
from ptbr_slm.config import model_config
from ptbr_slm.data.document import DocumentCounts
from ptbr_slm.errors import Exit, SlmError
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.prompt import CHAT_SAMPLING
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.tune.conversations import detect, read_items

FIXED = ("-n", "8", "--seed", "4")


@pytest.fixture(scope="module")
def models(texts, tmp_path_factory) -> dict[str, Path]:
    """`tuned`, its `export`, and `base`, which has the template and has not learnt it."""
    tokenizer = Tokenizer.train(texts * 4, 384)
    config = model_config("nano", vocab_size=tokenizer.vocab_size, max_seq_len=320)
    weights = random_weights(config, 7, scale=6)
    folder = tmp_path_factory.mktemp("chat")
    ends = (*config.eos_token_ids, tokenizer.token_id("<|im_end|>"))
    write_model(folder / "base", config, tokenizer, weights)
    write_model(folder / "tuned", replace(config, eos_token_ids=ends), tokenizer, weights)
    export_model(folder / "tuned", folder / "export", precision="fp32", verify=False)
    return {name: folder / name for name in ("base", "tuned", "export")}


@pytest.fixture
def talk(models, monkeypatch, tmp_path) -> Callable[..., Any]:
    """Run `ptbr-slm chat MODEL ARGUMENTS` inside this process, with these lines at standard input."""
    monkeypatch.chdir(tmp_path)

    def run(lines: str | bytes, *arguments: str | Path, model: str | Path = "tuned") -> Any:
        words = ["chat", str(models.get(model, model)), *map(str, arguments)]
        return CliRunner().invoke(app, words, input=lines)

    return run


def events(text: str, kind: str = "answer") -> list[dict]:
    found = [json.loads(line) for line in text.splitlines()]
    return [event for event in found if event["event"] == kind]


def test_each_line_is_answered_in_the_light_of_the_lines_before_it(talk, models):
    done = talk("Olá, ção\n\nE agora?\n", *FIXED, "--json")
    first, second = events(done.stdout)
    with Model(models["tuned"]) as model:
        said = [{"role": "user", "content": "Olá, ção"}]
        expected = model.chat(said, max_new_tokens=8, seed=4)
        said += [{"role": "assistant", "content": expected}, {"role": "user", "content": "E agora?"}]
        assert (first["message"], first["text"]) == ("Olá, ção", expected)
        assert second["text"] == model.chat(said, max_new_tokens=8, seed=5)
    assert (first["finish_reason"], len(first["tokens"]), first["seed"]) == ("length", 8, 4)
    assert second["seed"] == 5
    assert second["prompt_tokens"] > first["prompt_tokens"] and second["reused_tokens"] > 0
    [ready], [end] = events(done.stdout, "ready"), events(done.stdout, "done")
    assert (ready["tuned"], ready["engine"], end["answers"]) == (True, "torch", 2)
    plain = talk("Olá, ção\n\nE agora?\n", *FIXED, "-q")
    assert plain.stdout == f"{first['text']}\n\n{second['text']}\n" and plain.stderr == ""


def test_a_line_comes_to_be_answered_before_the_next_is_written(models):
    command = [sys.executable, "-m", "ptbr_slm", "chat", str(models["export"]), *FIXED, "--json"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert json.loads(process.stdout.readline())["event"] == "ready"
        for message in ("Olá", "Tudo bem?"):
            process.stdin.write(message + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["message"] == message
        process.stdin.close()
        assert json.loads(process.stdout.readline()) == {"event": "done", "answers": 2}


def test_an_untuned_model_answers_with_one_warning(talk, models):
    done = talk("Oi\nOi\n", *FIXED, model="base")
    assert done.stderr.count("não foi treinado para conversar") == 1
    assert f"ptbr-slm tune {models['base']} --data" in done.stderr


def test_commands_start_anew_set_the_system_and_save(talk, tmp_path):
    lines = ["/sistema Seja breve.", "Um", "/salvar a b.jsonl", "/novo", "Dois", "//três",
             "/SALVAR a b.jsonl", "Quatro", "/salvar", "/sair", "nunca lido"]  # fmt: skip
    done = talk("\n".join(lines), *FIXED, "--json")
    answers = events(done.stdout)
    assert [answer["message"] for answer in answers] == ["Um", "Dois", "/três", "Quatro"]
    assert answers[0]["prompt_tokens"] < answers[1]["prompt_tokens"] + 3 < answers[2]["prompt_tokens"]
    rows = [json.loads(line) for line in (tmp_path / "a b.jsonl").read_text("utf-8").splitlines()]
    assert [[m["content"] for m in row["messages"] if m["role"] == "user"] for row in rows] == [
        ["Um"],
        ["Dois", "/três", "Quatro"],
    ]
    assert {row["messages"][0]["content"] for row in rows} == {"Seja breve."}
    assert rows[1]["messages"][2] == {"role": "assistant", "content": answers[1]["text"]}
    assert rows[1]["unfinished"] == [2, 4, 6]  # -n 8 cut them all
    assert [event["messages"] for event in events(done.stdout, "saved")] == [3, 5, 7]


def test_what_is_saved_is_what_tune_reads(talk, tmp_path):
    talk("/sistema Seja breve.\nUm\nDois\n/salvar c.jsonl\n/novo\nTrês\n/salvar c.jsonl\n", *FIXED)
    rows = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text("utf-8").splitlines()]
    assert detect(list(rows[0])) == "messages"
    counts = DocumentCounts()
    read = list(read_items([tmp_path / "c.jsonl"], counts=counts))
    assert [len(item.messages) for item in read] == [5, 3] and not counts.dropped
    assert [m.content for m in read[0].messages if m.role != "assistant"] == ["Seja breve.", "Um", "Dois"]


def test_help_and_the_system_text_are_shown_on_stderr(talk):
    done = talk("/ajuda\n/sistema\n", "-q", "-s", "Seja gentil.")
    assert (done.stdout, done.exit_code) == ("", 0)
    for command in ("/novo", "/sistema TEXTO", "/salvar ARQUIVO", "/ajuda", "/sair"):
        assert f"  {command} " in done.stderr
    assert "Seja gentil." in done.stderr and max(map(len, done.stderr.splitlines())) <= 80


def test_what_does_not_fit_is_left_out_and_said(talk):
    done = talk(("casa amarela " * 9 + "\n") * 5, *FIXED)
    noted = [line for line in done.stderr.splitlines() if "antigas" in line]
    assert noted and noted[0] == (
        "(As 2 mensagens mais antigas não couberam no contexto, e o modelo não as leu.)"
    )


@pytest.mark.parametrize(
    ("arguments", "lines", "code", "exit_code", "shown"),
    [
        ((), "/nvo\n", "E_USAGE", 2, "Quis dizer /novo?"),
        ((), "/sistemas x\n", "E_USAGE", 2, "Quis dizer /sistema?"),
        ((), "/xyzw\n", "E_USAGE", 2, "/ajuda mostra todos"),
        ((), "/salvar x.jsonl\n", "E_USAGE", 2, "ainda não há conversa"),
        ((), "Oi\n/salvar\n", "E_USAGE", 2, "falta o arquivo"),
        ((), "Oi\n/salvar não/há.jsonl\n", "E_NOT_FOUND", 1, "não/há.jsonl"),
        ((), "palavra " * 400, "E_PROMPT_TOO_LONG", 2, "contexto do modelo"),
        (("--system", "palavra " * 400), "Oi\n", "E_PROMPT_TOO_LONG", 2, "texto de sistema"),
        (("--temperature", "-1"), "", "E_SAMPLING", 2, "temperature"),
        (("--max-tokens", "0"), "", "E_SAMPLING", 2, "max_new_tokens"),
        (("--device", "cuda"), "", "E_PROVIDER", 1, "cuda"),
    ],
)
def test_bad_input_is_three_lines_and_an_exit_code(talk, arguments, lines, code, exit_code, shown, tmp_path):
    done = talk(lines, "-n", "2", "-q", *arguments)
    assert done.stderr.startswith(f"Erro [{code}]: ") and len(done.stderr.splitlines()) == 3
    assert shown in done.stderr and done.exit_code == exit_code
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_template_or_without_a_model_is_refused(talk, models, tmp_path):
    assert talk("", model=tmp_path).exit_code == Exit.CORRUPT
    bare = tmp_path / "sem"
    bare.mkdir()
    for file in models["base"].iterdir():
        if file.name not in ("tokenizer_config.json", "manifest.json"):
            (bare / file.name).write_bytes(file.read_bytes())
    done = talk("Oi\n", model=bare)
    assert done.stderr.startswith("Erro [E_CHAT_TEMPLATE]") and "ptbr-slm tune" in done.stderr
    assert (done.stdout, done.exit_code) == ("", 1)


def test_standard_input_that_is_no_utf8_is_refused(talk):
    done = talk("Oi\nação\n".encode("latin-1"), "-n", "2")
    assert done.exit_code == 2 and "linha 2" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full só existe no Linux")
def test_it_ends_when_its_reader_has_enough(models):
    command = [sys.executable, "-m", "ptbr_slm", "chat", str(models["export"]), "-q", "-n", "200"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdin.write(b"Oi\n" * 50)
        process.stdin.close()
        process.stdout.read(5)
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(60) == Exit.PIPE


def test_the_flags_have_the_defaults_of_the_library():
    flags = inspect.signature(chat).parameters
    for name, value in CHAT_SAMPLING.items():
        assert flags[name].default == value, name


def test_an_answer_without_text_leaves_no_trace_in_the_conversation(models, capsys):
    with Model(models["tuned"]) as model:
        end = model.engine.tokenizer.token_id("<|im_end|>")
        session = ChatSession(Output(Mode.HUMAN), model, {"logit_bias": {end: 100.0}, "temperature": 0.0})
        assert session.take("Oi")
        assert "sem escrever nada" in capsys.readouterr().err
        with pytest.raises(SlmError, match="não há conversa"):
            session.take("/salvar x.jsonl")


def row(*contents: str) -> dict:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]}


def test_a_file_of_conversations_grows_and_what_else_it_holds_stays(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps(row("de antes", "x")), encoding="utf-8")  # its last line has no end
    first, second = ConversationFile(), ConversationFile()
    first.save(path, row("a", "b"))
    first.save(path, row("a", "b", "c", "d"))
    second.save(path, row("outra", "ção"))
    first.save(path, row("a", "b", "c", "d", "e", "f"))  # no longer the last: what was saved stays
    first.save(path, row("a", "b"))
    found = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert found == [row("de antes", "x"), row("a", "b", "c", "d"), row("outra", "ção"), row("a", "b")]


@pytest.mark.parametrize(
    "content", ["minhas notas\n", '{"text": "x"}\n', "[1]\n", '{"messages": []}\n', "\n"]
)
def test_a_file_of_something_else_is_never_touched(tmp_path, content):
    path = tmp_path / "notas.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SlmError) as caught:
        ConversationFile().save(path, row("a", "b"))
    assert caught.value.code == "E_EXISTS" and path.read_text("utf-8") == content
    with pytest.raises(SlmError):
        ConversationFile().save(tmp_path, row("a", "b"))
