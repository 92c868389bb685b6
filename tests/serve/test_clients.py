"""Other projects' clients against our server: the programs of docs/SERVIDOR.md, each in its own environment.

Skipped unless PTBR_SLM_CLIENTS names a folder of virtual environments, a folder each by the name that stands
after ```python in the page. They are kept out of ours, for their dependencies do not agree:

    python -m venv $PTBR_SLM_CLIENTS/langchain && $PTBR_SLM_CLIENTS/langchain/bin/pip install langchain-openai

    langchain: langchain-openai     llamaindex: llama-index-llms-openai-like     litellm: litellm
    instructor: instructor          pydanticai: pydantic-ai-slim[openai]         llm: llm

PTBR_SLM_CLIENTS_URL: a server that runs already, with a model called `conversa`; else one with random
weights is made.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "SERVIDOR.md").read_text(encoding="utf-8")
PROGRAMS = dict(re.findall(r"^```python (\w+)\n(.*?)^```", PAGE, flags=re.M | re.S))
LLM = re.findall(r"^(llm openai .*)$", PAGE, flags=re.M)
ENVIRONMENTS = os.environ.get("PTBR_SLM_CLIENTS", "")
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_API_KEY": "-", "NO_PROXY": "127.0.0.1"}
PATIENCE_S = 600
"""litellm alone took minutes to import on two busy cores."""


@pytest.fixture
def url(request) -> str:
    given = os.environ.get("PTBR_SLM_CLIENTS_URL")
    return given if given else request.getfixturevalue("server").url


def environment(name: str) -> Path:
    """The `bin` folder of a client's environment."""
    found = Path(ENVIRONMENTS, name, "bin")
    if not ENVIRONMENTS or not found.is_dir():
        pytest.skip(f"{name}: outro ambiente, veja o começo de test_clients.py (PTBR_SLM_CLIENTS)")
    return found


def run(words: list[str], tmp_path: Path) -> str:
    done = subprocess.run(
        words, env=os.environ | OFFLINE | {"LLM_USER_PATH": str(tmp_path)}, cwd=tmp_path, timeout=PATIENCE_S,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.timeout(PATIENCE_S + 60)
@pytest.mark.parametrize("client", PROGRAMS)
def test_the_program_of_a_client_runs_in_its_own_environment(client, url, tmp_path):
    program = PROGRAMS[client].replace("http://127.0.0.1:8000", url)
    assert run([str(environment(client) / "python"), "-c", program], tmp_path).strip()


@pytest.mark.timeout(PATIENCE_S + 60)
@pytest.mark.parametrize("command", LLM)
def test_llm_lists_and_streams(command, url, tmp_path):
    words = shlex.split(command.replace("http://127.0.0.1:8000", url))
    told = run([str(environment("llm") / words[0]), *words[1:]], tmp_path)
    assert "conversa" in told if "--models" in words else told.strip()
