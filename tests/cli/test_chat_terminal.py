"""`ptbr-slm chat` at a terminal: real signals and keys on a pseudo-terminal, and its end."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ptbr_slm_export import export_model
from tiny_models import random_weights, write_model

from ptbr_slm.config import model_config
from ptbr_slm.errors import Exit
from ptbr_slm.runtime.model import Model
from ptbr_slm.tokenizer import Tokenizer

if os.name == "nt":
    pytest.skip("precisa de um pseudoterminal POSIX", allow_module_level=True)

from terminal import CTRL_C, CTRL_D, Terminal

LONG = ("-n", "100000", "--temperature", "0")


@pytest.fixture(scope="module")
def model(texts, tmp_path_factory) -> Path:
    """Tuned by its looks, with answers that end only where the context does: after seconds."""
    tokenizer = Tokenizer.train(texts * 4, 384)
    config = model_config("nano", vocab_size=tokenizer.vocab_size, max_seq_len=16_384)
    weights = random_weights(config, 7, scale=6)
    end = tokenizer.token_id("<|im_end|>")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in weights:
            weights[name][[*config.eos_token_ids, end]] = 0.0  # never the most probable
    folder = tmp_path_factory.mktemp("chat") / "modelo"
    config = replace(config, eos_token_ids=(*config.eos_token_ids, end))
    write_model(folder, config, tokenizer, weights)
    export_model(folder, folder.parent / "export", precision="fp32", verify=False)
    return folder.parent / "export"


@pytest.fixture
def terminal(model, tmp_path):
    """Opens terminals in which a conversation waits for its first message."""
    opened = []

    def start(*arguments: str, **environment: str) -> Terminal:
        opened.append(Terminal(["chat", model, *arguments], tmp_path, **environment))
        opened[-1].expect("Você: ")
        return opened[-1]

    yield start
    for each in opened:
        each.__exit__()


def test_ctrl_c_stops_the_answer_and_the_half_of_it_stays_marked(terminal, tmp_path):
    window = terminal(*LONG)
    window.send("Olá, ção?\n")
    window.expect("Modelo: ")
    window.expect_more()
    window.send(CTRL_C)
    window.expect("(Resposta interrompida; o que saiu fica na conversa.)")
    window.expect("Você: ")
    window.send("/salvar metade.jsonl\n")
    window.expect("2 mensagens")
    window.expect("pela metade")
    saved = json.loads((tmp_path / "metade.jsonl").read_bytes())
    assert saved["unfinished"] == [1] and saved["messages"][0]["content"] == "Olá, ção?"
    assert saved["messages"][1]["content"]
    window.expect("Você: ")
    window.send("/sair\n")
    assert window.end() == 0


def test_many_interrupts_during_one_answer_do_not_end_the_program(terminal):
    window = terminal(*LONG)
    for _ in range(3):
        window.send("Oi\n")
        window.expect("Modelo: ")
        time.sleep(0.1)
        os.kill(window.process.pid, signal.SIGINT)
        window.expect("(Resposta interrompida")
        window.expect("Você: ")
    window.send(CTRL_D)
    assert window.end() == 0


def test_a_second_ctrl_c_at_the_prompt_leaves_with_130(terminal):
    window = terminal("-n", "3")
    window.wait_idle()
    window.send("começo de linha" + CTRL_C)
    window.expect("Ctrl-C de novo encerra")
    window.expect("Você: ")
    window.send("Oi\n")
    window.expect("Modelo: ")
    window.expect("Você: ")
    window.wait_idle()
    window.send(CTRL_C)  # the first again: a line came between
    window.expect("Ctrl-C de novo encerra")
    window.expect("Você: ")
    window.wait_idle()
    window.send(CTRL_C)
    assert window.end() == Exit.INTERRUPTED and "Traceback" not in window.shown


def test_wrong_commands_and_messages_too_long_are_said_and_the_conversation_goes_on(terminal):
    window = terminal("-n", "3")
    window.send("\n   \n/ajda\n")
    window.expect("Quis dizer /ajuda?")
    window.expect("Você: ")
    window.send("/salvar /\n")
    window.expect("[E_USAGE]")
    window.expect("Você: ")
    window.send("Oi\n")
    window.expect("cortada em 3 tokens")
    window.expect("Você: ")
    window.send("/salvar /\n")
    window.expect("[E_EXISTS]")
    window.expect("Você: ")
    window.send("/novo\n")
    window.expect("Conversa nova")
    window.expect("Você: ")
    window.send(CTRL_D)
    assert window.end() == 0 and "Traceback" not in window.shown


def test_the_arrow_brings_a_line_back_and_the_disk_has_it_only_where_asked(terminal, tmp_path):
    pytest.importorskip("readline")
    window = terminal("-n", "1", "--history", "linhas", TERM="xterm")
    window.send("açúcar\n")
    window.expect("cortada")
    window.expect("Você: ")
    window.send("\x1b[A\n")  # up
    window.expect("açúcar")
    window.expect("cortada")
    window.expect("Você: ")
    window.send(CTRL_D)
    assert window.end() == 0
    assert set((tmp_path / "linhas").read_text("utf-8").splitlines()) == {"açúcar"}
    assert (tmp_path / "linhas").stat().st_mode & 0o077 == 0
    other = terminal("-n", "1", TERM="xterm")
    other.send("segredo\n")
    other.expect("cortada")
    other.expect("Você: ")
    other.send(CTRL_D)
    assert other.end() == 0
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and b"segredo" in file.read_bytes()]


def controls(text: str) -> list[str]:
    return [char for char in text if ord(char) < 32 and char not in "\n\t\r"]


def test_control_characters_of_an_answer_do_not_reach_the_terminal(model, terminal):
    options = {"max_new_tokens": 60, "temperature": 2.0}
    with Model(model) as opened:
        said = [{"role": "user", "content": "Oi"}]
        answers = ((seed, opened.chat(said, seed=seed, **options)) for seed in range(40))
        seed = next(seed for seed, text in answers if controls(text))
    window = terminal("-n", "60", "--temperature", "2", "--seed", str(seed))
    window.send("Oi\n")
    window.expect("Modelo: ")
    assert not controls(window.expect("Você: "))


def test_a_window_that_is_closed_ends_the_program(terminal):
    window = terminal(*LONG)
    window.send("Oi\n")
    window.expect("Modelo: ")
    window.hang_up()
    assert window.process.wait(20) == -signal.SIGHUP


@pytest.mark.parametrize("answering", [False, True])
def test_a_terminal_that_is_gone_ends_it_under_nohup_too(model, tmp_path, answering):
    with Terminal(["chat", model, *LONG], tmp_path, nohup=True) as window:
        window.expect("Você: ")
        if answering:
            window.send("Oi\n")
            window.expect("Modelo: ")
        window.hang_up()
        assert window.process.wait(20) in (Exit.OK, Exit.ERROR)


def test_answers_may_go_to_a_file_while_a_person_types(model, tmp_path):
    with Terminal(["chat", model, "-n", "3", "-q", "--seed", "1"], tmp_path, stdout="saída") as window:
        window.expect("> ")
        window.send("Oi\n")
        window.expect("> ")
        window.send(CTRL_D)
        assert window.end() == 0
    assert (tmp_path / "saída").read_text("utf-8").count("\n") == 1
