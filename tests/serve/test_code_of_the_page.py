"""Usar no meu código: the programs of static/code.js run, whatever the text; against the real server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from page_scripts import run_script

from ptbr_slm.app.code_snippets import Api, address_of
from ptbr_slm.demo import MACHADO, model_path

HOSTILE = (
    "Era \"uma\" vez 'um' \\n \\ rio\n$HOME `id` $(id) !! #{x} %s {{y}} ${z}\t'''\"\"\" </script>\r\n"
    "😀 é\u202e\u200b\u2028\x7f -d @/etc/passwd"
)
OPTIONS = {"max_new_tokens": 8, "temperature": 0.9, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.1}
ENDLESS_ZEROS = "0.9000000000000001"
"""What a slider may hold in place of 0.9."""


def programs(text: str, url: str, folder: Path, *, seed: str = "007", keys: bool = False) -> list[str]:
    """Python, curl, openai."""
    address = {"name": "base", "path": str(folder), "api": f"{url}/v1" if url else None, "keys": keys}
    given = json.dumps([text, *OPTIONS.values(), seed]).replace("0.9,", f"{ENDLESS_ZEROS},", 1)
    found = run_script("code.js", f"ptbrCode.all({json.dumps(address)}, {given})")
    assert isinstance(found, list)
    return found


def run(*words: str, **environment: str) -> str:
    done = subprocess.run(
        words, capture_output=True, text=True, encoding="utf-8", timeout=120, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def expected(server, exports) -> str:
    """What the model writes for the same text, settings and seed."""
    return server.models["base"].generate(HOSTILE, **OPTIONS, seed=7)


def test_the_python_program_writes_what_the_page_writes(server, exports, expected):
    python, _, _ = programs(HOSTILE, server.url, exports["base"])
    assert run(sys.executable, "-c", python) == expected


@pytest.mark.skipif(shutil.which("curl") is None, reason="instale com: apt-get install curl")
def test_the_curl_command_sends_the_text_as_it_is(server, exports, expected, tmp_path):
    _, curl, _ = programs(HOSTILE, server.url, exports["base"])
    answer = json.loads(
        run("bash", "-c", curl.replace("curl ", "curl -s --noproxy '*' ", 1), HOME=str(tmp_path))
    )
    assert answer["choices"][0]["text"] == expected


def test_the_openai_program_writes_the_same_and_reads_the_key_from_the_environment(server, exports, expected):
    _, _, openai = programs(HOSTILE, server.url, exports["base"], keys=True)
    told = run(sys.executable, "-c", openai, PTBR_SLM_API_KEY="qualquer", NO_PROXY="127.0.0.1")
    assert told == expected + "\n"


def test_what_cannot_be_seen_or_turns_the_text_round_is_written_as_an_escape(exports):
    for program in programs(HOSTILE, "", exports["base"]):
        assert "\u202e" not in program and "\\u202e" in program and "\x7f" not in program


def test_a_seed_keeps_its_digits_and_none_or_a_wrong_one_is_left_out(exports):
    assert all(
        "9223372036854775807" in each for each in programs("x", "", exports["base"], seed=str(2**63 - 1))
    )
    for seed in ("", "abc", "1.5", "-1"):
        assert not any("seed" in each for each in programs("x", "", exports["base"], seed=seed))


def test_without_a_server_the_program_says_how_to_start_one(exports):
    path = exports["base"].parent / "a 'b' $c"
    _, curl, openai = programs("x", "", path)
    command = curl.splitlines()[0].partition(": ")[2]
    assert openai.splitlines()[0].partition(": ")[2] == command
    words = run("bash", "-c", f"printf '%s\\n' {command.removeprefix('ptbr-slm ')}").splitlines()
    assert words == ["serve", str(path), "--name", "base"]


def test_the_address_tells_the_folder_from_where_the_page_was_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    api = Api("../v1", keys=True)
    assert address_of("x", tmp_path / "runs" / "x", api).path == "runs/x"
    assert address_of("x", Path("runs/x"), None) == address_of("x", tmp_path / "runs" / "x", None)
    assert address_of("x", Path("/outro/lugar"), api).path == "/outro/lugar"
    assert address_of("x", model_path(MACHADO), api).path == MACHADO
    found = run_script(
        "code.js", 'ptbrCode.all({name: "x", path: "x", api: "../v1", keys: false}, ["a", 1, 1, 1, 0, 1, ""])'
    )
    assert "http://127.0.0.1:7860/modelo/v1/completions" in found[1]
