"""docs/SERVIDOR.md: its commands start servers, its programs run, its tables are those of the code."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "SERVIDOR.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.M | re.S)
    for line in block.splitlines()
    if line.startswith("ptbr-slm ")
]
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S)
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "ptbr_slm" / "serve").rglob("*.py"))


@pytest.fixture(scope="module")
def workplace(exports, tmp_path_factory) -> Path:
    """A folder with the models and the keys that the page's commands name."""
    folder = tmp_path_factory.mktemp("guide")
    for name, export in (("conversa", exports["conversa"]), ("meu", exports["base"])):
        (folder / "runs" / name).mkdir(parents=True)
        (folder / "runs" / name / "export").symlink_to(export)
    (folder / "chaves.txt").write_text("uma-chave-de-teste\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_answers_and_ends_when_it_is_told(command, workplace):
    words = [*shlex.split(command)[1:], "--port", "0", "--json"]
    running = subprocess.Popen(
        [sys.executable, "-m", "ptbr_slm", *words], cwd=workplace, stdout=subprocess.PIPE, text=True
    )
    with running:
        assert running.stdout is not None
        ready = json.loads(running.stdout.readline())
        assert ready["event"] == "ready" and ready["models"][0] == "conversa"
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=60) == 0


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_every_program_of_the_openai_client_runs(program, server, capsys):
    if "text_format" in program:
        pytest.importorskip("llguidance", reason="constrained output: pip install 'ptbr-slm[constrain]'")
    assert "http://127.0.0.1:8000" in program
    code = program.replace("http://127.0.0.1:8000", server.url)
    exec(compile(code, "SERVIDOR.md", "exec", dont_inherit=True), {})  # nor this file's `annotations`
    assert capsys.readouterr().out.strip()


def test_every_error_that_the_server_gives_is_explained_and_no_other():
    section = PAGE[PAGE.index("## Erros") :]
    rows = re.findall(r"^\| (`.*?) \| [\d, ]+ \|", section, flags=re.M)
    explained = {code for row in rows for code in re.findall(r"`(\w+)`", row)}
    given = set(re.findall(r'code="([a-z_]+)"', SOURCES)) - {"client_left"}  # in logs only
    assert given <= explained
    assert all(f'"{code}"' in SOURCES for code in explained)


def test_every_flag_of_the_page_exists():
    docs = runpy.run_path(str(ROOT / "scripts" / "generate_cli_docs.py"))
    known = docs["help_of"](["serve"])
    others = r"`(cn|llm|codex|lm_eval|schemathesis)\b[^`]*`"
    told = re.sub(others, "", re.sub(r"^```.*?^```", "", PAGE, flags=re.M | re.S))
    flags = set(re.findall(r"`(--[a-z][a-z-]*)", told)) - {"--responses", "--workers"}
    for command in COMMANDS:
        flags |= set(re.findall(r"(?<=\s)(--[a-z][a-z-]*)", command))
    assert len(flags) >= 6
    for flag in flags:
        assert re.search(rf"(?<![\w-]){flag}(?![\w-])", known), flag


def test_the_limits_of_the_page_are_those_of_the_code():
    from ptbr_slm.serve.config import ServeConfig

    config = ServeConfig()
    assert f"| textos ao mesmo tempo, por modelo | `--max-slots`, {config.max_slots} |" in PAGE
    assert f"| textos que esperam | `--max-waiting`, {config.max_waiting} |" in PAGE
    assert config.max_body_bytes == 1 << 20
    assert f"| corpo do pedido | 1 MiB, em até {config.body_timeout_s:g} s | 413, 408 |" in PAGE
    assert (
        f"`--timeout`, {config.timeout_s:g} s" in PAGE and f"`--drain-seconds` ({config.drain_s:g} s)" in PAGE
    )
    assert f"| cliente que não lê | {config.write_timeout_s:g} s |" in PAGE
    assert config.max_connections == 1000 and "| conexões | 1.000 | 503 |" in PAGE
