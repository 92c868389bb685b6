"""`ptbr-slm generate` as a real process."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys

import pytest

from ptbr_slm.cli.generate import generate
from ptbr_slm.runtime.types import SamplingParams

FIXED = ["--seed", "4", "-n", "12"]


def test_text_streams_to_stdout_and_the_figures_to_stderr(cli, export_folder):
    done = cli("generate", "-m", export_folder, "O rio", *FIXED, check=True)
    again = cli("generate", "--model", export_folder, "O rio", *FIXED, "--quiet", check=True)
    assert done.stdout.startswith("O rio")
    assert done.stdout == "O rio" + again.stdout
    status = r"12 tokens · [\d.,]+ tokens/s · primeiro token [\d.,]+ ms · semente 4\n"
    assert re.fullmatch(status, done.stderr)
    assert again.stderr == ""


def test_json_is_one_document_with_the_typed_result(cli, export_folder):
    done = cli("generate", "-m", export_folder, "-", *FIXED, "--json", input="O rio\n", check=True)
    document = json.loads(done.stdout)
    assert document["prompt"] == "O rio"
    assert (len(document["tokens"]), document["finish_reason"]) == (12, "length")
    assert (document["engine"], document["device"], document["precision"]) == ("onnx", "cpu", "fp32")
    assert document["seed"] == 4
    plain = cli("generate", "-m", export_folder, "O rio", *FIXED, check=True)
    assert plain.stdout == "O rio" + document["text"] + "\n"


def test_a_stop_text_may_be_given_many_times(cli, export_folder):
    whole = json.loads(cli("generate", "-m", export_folder, "O", *FIXED, "--json", check=True).stdout)["text"]
    stop = whole[3:5]
    done = cli(
        "generate", "-m", export_folder, "O", *FIXED, "--stop", "$$", "--stop", stop, "--json", check=True
    )
    document = json.loads(done.stdout)
    assert (document["finish_reason"], document["text"]) == ("stop", whole[: whole.index(stop)])


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        ([""], "E_PROMPT", 2),
        ([], "E_PROMPT", 2),
        (["palavra " * 900], "E_PROMPT_TOO_LONG", 2),
        (["x", "--temperature", "nan"], "E_SAMPLING", 2),
        (["x", "--top-p", "2"], "E_SAMPLING", 2),
        (["x", "-n", "0"], "E_SAMPLING", 2),
        (["x", "--device", "cuda"], "E_PROVIDER", 1),
    ],
)
def test_bad_input_is_three_lines_and_an_exit_code(cli, export_folder, arguments, code, exit_code):
    done = cli("generate", "-m", export_folder, *arguments, input="")
    assert done.stderr.startswith(f"Erro [{code}]: ")
    assert len(done.stderr.splitlines()) == 3
    assert (done.stdout, done.returncode) == ("", exit_code)


def test_a_folder_that_is_no_model_has_exit_code_3(cli, tmp_path):
    done = cli("generate", "-m", tmp_path, "x")
    assert (done.returncode, "E_MODEL_INVALID" in done.stderr) == (3, True)


def test_standard_input_that_is_no_utf8_is_refused(export_folder):
    command = [sys.executable, "-m", "ptbr_slm", "generate", "-m", str(export_folder), "-"]
    done = subprocess.run(command, input="ação".encode("latin-1"), capture_output=True, check=False)
    assert done.returncode == 2
    assert b"E_PROMPT" in done.stderr


def test_the_flags_have_the_defaults_of_the_library():
    flags = inspect.signature(generate).parameters
    for name, field in SamplingParams.__dataclass_fields__.items():
        if name != "stop":
            assert flags[name].default == field.default, name
