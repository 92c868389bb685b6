"""examples/destilar_texto.py: a teacher's answers as conversations that a tuning reads."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.tune.conversations import Conversation, read_items

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "destilar_texto.py"
ANSWERS = {
    "Oi?": ("Olá!", "stop"),
    "Conte até mil.": ("1, 2, 3,", "length"),
    "Silêncio.": ("  ", "stop"),
    "Que dia é hoje?": (" Não sei. ", "stop"),
    "E o mar?": ("Azul.", "stop"),
}


@pytest.fixture
def server() -> Iterator[SimpleNamespace]:
    """A teacher behind /v1/chat/completions; it dies of a question in `deadly`."""
    state = SimpleNamespace(url="", bodies=[], deadly=set[str]())

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self._send({"data": [{"id": "professor"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked = body["messages"][-1]["content"]
            state.bodies.append(body)
            if asked in state.deadly:
                return self._send({"error": {"message": "não"}}, 401)
            text, reason = ANSWERS[asked]
            message = {"role": "assistant", "content": text}
            self._send({"choices": [{"message": message, "finish_reason": reason}]})

        def _send(self, body: dict[str, Any], status: int = 200) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield state
    http.shutdown()
    http.server_close()


@pytest.fixture(scope="module")
def tokenizer(texts: list[str]) -> Tokenizer:
    return Tokenizer.train(texts, 300)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The names of the script."""
    import runpy

    return SimpleNamespace(**runpy.run_path(str(SCRIPT)))


def ask(script: Any, server: Any, folder: Path, *more: str) -> dict[str, int]:
    questions = folder / "perguntas.txt"
    questions.write_text("\n\n".join(ANSWERS), encoding="utf-8")
    words = [server.url, str(questions), "-o", str(folder / "c.jsonl"), "--licenca", "Apache-2.0", *more]
    return dict(script.destilar(script.ler_opcoes(words)))


def test_answers_that_end_become_conversations(script, server, tmp_path) -> None:
    counts = ask(script, server, tmp_path, "--sistema", "Seja breve.", "--temperature", "0", "--lote", "2")
    assert counts == {"conversas": 3, "length": 1, "vazia": 1}
    found = [item for item in read_items([tmp_path / "c.jsonl"]) if isinstance(item, Conversation)]
    assert [[m.role for m in item.messages] for item in found] == [["system", "user", "assistant"]] * 3
    assert [item.messages[-1].content for item in found] == ["Olá!", "Não sei.", "Azul."]
    card = json.loads((tmp_path / "c.jsonl.origem.json").read_text(encoding="utf-8"))
    assert card["teacher"].startswith("professor em 127.0.0.1") and card["licence"] == "Apache-2.0"
    assert card["sampling"]["temperature"] == 0 and card["counts"] == counts
    assert server.bodies[0]["max_tokens"] == 256 and "max_new_tokens" not in server.bodies[0]


def test_an_interrupted_one_asks_only_what_is_missing(script, server, tmp_path) -> None:
    from ptbr_slm.errors import SlmError

    server.deadly = {"Que dia é hoje?"}
    with pytest.raises(SlmError, match="acesso"):
        ask(script, server, tmp_path, "--lote", "1")
    with (tmp_path / "c.jsonl").open("a") as file:  # as kill -9 cuts a line
        file.write('{"id": 3, "messages": [{"ro')
    server.deadly, before = set(), len(server.bodies)
    assert ask(script, server, tmp_path, "--lote", "1") == {"conversas": 3, "length": 1, "vazia": 1}
    asked = [body["messages"][-1]["content"] for body in server.bodies[before:]]
    assert asked == ["Que dia é hoje?", "E o mar?"]
    assert [item.where.rpartition(":")[2] for item in read_items([tmp_path / "c.jsonl"])] == ["1", "2", "3"]


def test_another_teacher_or_sampling_does_not_mix(script, server, tmp_path) -> None:
    ask(script, server, tmp_path)
    with pytest.raises(SystemExit, match="sampling"):
        ask(script, server, tmp_path, "--seed", "7")
    (tmp_path / "c.jsonl.origem.json").unlink()
    with pytest.raises(SystemExit, match="já existe"):
        ask(script, server, tmp_path)


def test_questions_may_be_conversations(script, tmp_path) -> None:
    file = tmp_path / "q.jsonl"
    rows = [
        {"prompt": "Oi?"},
        {"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "outra"}]},
        {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "B"}]},
    ]
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    found = [[(m["role"], m["content"]) for m in messages] for messages in script.perguntas(file, "X")]
    assert found == [
        [("system", "X"), ("user", "Oi?")],
        [("system", "X"), ("user", "A")],
        [("system", "S"), ("user", "B")],
    ]


def test_a_model_that_only_continues_is_no_teacher(script, tokenizer, tmp_path) -> None:
    from tiny_models import write_model

    from ptbr_slm.config import ModelConfig

    shape = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=32, num_layers=1, num_heads=2,
                        num_kv_heads=1, head_dim=16, intermediate_size=48, max_seq_len=64)  # fmt: skip
    folder = write_model(tmp_path / "base", shape, tokenizer)
    (tmp_path / "q.txt").write_text("Oi?", encoding="utf-8")
    words = [str(folder), str(tmp_path / "q.txt"), "-o", str(tmp_path / "c.jsonl"), "--licenca", "x"]
    with pytest.raises(SystemExit, match="não aprendeu a responder"):
        script.destilar(script.ler_opcoes(words))
    assert not (tmp_path / "c.jsonl").exists()


def test_a_local_teacher_answers_in_batches(script, tokenizer, tmp_path) -> None:
    """A random model that ends its turns as the template does: most answers do not end, and none is lost."""
    from tiny_models import write_model

    from ptbr_slm.chat.format import ChatFormat
    from ptbr_slm.chat.tuned import tuned_config
    from ptbr_slm.config import ModelConfig
    from ptbr_slm.storage.model_folder import ModelFolder

    shape = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=32, num_layers=1, num_heads=2,
                        num_kv_heads=1, head_dim=16, intermediate_size=48, max_seq_len=128)  # fmt: skip
    base = write_model(tmp_path / "base", shape, tokenizer)
    folder = write_model(tmp_path / "tuned", tuned_config(shape, ChatFormat.of(ModelFolder(base))), tokenizer)
    (tmp_path / "q.txt").write_text("Oi?\nE o mar?\nTudo bem?\n", encoding="utf-8")
    words = [str(folder), str(tmp_path / "q.txt"), "-o", str(tmp_path / "c.jsonl"), "--licenca", "x"]
    counts = script.destilar(script.ler_opcoes([*words, "--max-new-tokens", "8", "--lote", "2"]))
    assert sum(counts.values()) == 3
    card = json.loads((tmp_path / "c.jsonl.origem.json").read_text(encoding="utf-8"))
    assert card["teacher"] == "tuned" and len(card["teacher_sha256"]) == 64


def test_help_is_the_scripts_own_text() -> None:
    command = [sys.executable, str(SCRIPT), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Pede respostas a um modelo maior" in done.stdout and "--licenca" in done.stdout
