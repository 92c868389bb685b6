"""`ptbr-slm generate`: its options, and real processes, with standard streams closed or full too."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ptbr_slm_export import export_model
from tiny_models import random_weights, write_model

from ptbr_slm.cli.generate import generate
from ptbr_slm.config import model_config
from ptbr_slm.errors import Exit
from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.tokenizer import Tokenizer

FIXED = ["--seed", "4", "-n", "12"]
needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full só existe no Linux")


@pytest.fixture(scope="module")
def export_folder(texts, tmp_path_factory) -> Path:
    """An fp32 export of a nano model whose next tokens differ clearly."""
    tokenizer = Tokenizer.train(texts * 4, 384)
    config = model_config("nano", vocab_size=tokenizer.vocab_size, max_seq_len=640)
    folder = tmp_path_factory.mktemp("generate")
    write_model(folder / "modelo", config, tokenizer, random_weights(config, 7, scale=6))
    export_model(folder / "modelo", folder / "export", precision="fp32", verify=False)
    return folder / "export"


def test_text_streams_to_stdout_and_the_figures_to_stderr(cli, export_folder):
    done = cli("generate", "-m", export_folder, "O rio", *FIXED, check=True)
    again = cli("generate", "--model", export_folder, "O rio", *FIXED, "--quiet", check=True)
    assert done.stdout.startswith("O rio")
    assert done.stdout == "O rio" + again.stdout
    status = r"12 tokens · [\d.,]+ tokens/s · primeiro token [\d.,]+ ms · semente 4\n"
    assert re.fullmatch(status, done.stderr)
    assert again.stderr == ""


def test_json_is_one_document_with_the_typed_result(run, export_folder):
    done = run("generate", "-m", export_folder, "-", *FIXED, "--json", input="O rio\n", check=True)
    document = json.loads(done.stdout)
    assert document["prompt"] == "O rio"
    assert (len(document["tokens"]), document["finish_reason"]) == (12, "length")
    assert (document["engine"], document["device"], document["precision"]) == ("onnx", "cpu", "fp32")
    assert document["seed"] == 4
    plain = run("generate", "-m", export_folder, "O rio", *FIXED, check=True)
    assert plain.stdout == "O rio" + document["text"] + "\n"


def test_a_stop_text_may_be_given_many_times(run, export_folder):
    whole = json.loads(run("generate", "-m", export_folder, "O", *FIXED, "--json", check=True).stdout)["text"]
    stop = whole[3:5]
    done = run(
        "generate", "-m", export_folder, "O", *FIXED, "--stop", "$$", "--stop", stop, "--json", check=True
    )
    document = json.loads(done.stdout)
    assert (document["finish_reason"], document["text"]) == ("stop", whole[: whole.index(stop)])


def test_several_completions_are_numbered_and_have_seeds_of_their_own(run, export_folder):
    done = run("generate", "-m", export_folder, "O rio", *FIXED, "--n", "2", check=True)
    quiet = run("generate", "-m", export_folder, "O rio", *FIXED, "--n", "2", "-q", check=True).stdout
    found = json.loads(
        run("generate", "-m", export_folder, "O rio", *FIXED, "--n", "2", "--json", check=True).stdout
    )
    first, second = (completion["text"] for completion in found["completions"])
    assert [completion["seed"] for completion in found["completions"]] == [4, 5]
    assert done.stdout == f"[1 de 2 · semente 4]\nO rio{first}\n\n[2 de 2 · semente 5]\nO rio{second}\n"
    assert quiet == f"{first}\n\n{second}\n"
    assert re.fullmatch(
        r"2 textos · 24 tokens · [\d.,]+ tokens/s ao todo · primeiro token [\d.,]+ ms\n", done.stderr
    )


def test_log_probabilities_come_in_json_and_as_a_table(run, export_folder):
    flags = ("generate", "-m", export_folder, "O rio", *FIXED, "--logprobs", "2", "--prompt-logprobs")
    document = json.loads(run(*flags, "--json", check=True).stdout)
    assert [score["token"] for score in document["logprobs"]] == document["tokens"]
    assert all(score["logprob"] <= 0 and len(score["top"]) == 2 for score in document["logprobs"])
    assert len(document["prompt_logprobs"]) == document["prompt_tokens"]
    assert document["prompt_logprobs"][0] is None
    shown = run(*flags, check=True).stdout
    assert shown.startswith("O rio" + document["text"] + "\n")
    assert shown.count("as mais prováveis") == 2
    assert len(re.findall(r"^\".*\" +\S.* % ", shown, flags=re.MULTILINE)) == 12 + 3


def test_a_schema_from_a_file_or_standard_input_shapes_the_text(run, export_folder, tmp_path):
    pytest.importorskip("llguidance", reason="constrained output: pip install 'ptbr-slm[constrain]'")
    keys = '"properties": {"ano": {"enum": [1822, 1889]}}, "required": ["ano"], "additionalProperties": false'
    schema = f'{{"type": "object", {keys}}}'
    (tmp_path / "esquema ção.json").write_text(schema, encoding="utf-8")
    flags = ("generate", "-m", export_folder, "O rio", "-n", "40", "--seed", "1", "-q", "--json-schema")
    from_file = run(*flags, "esquema ção.json", check=True).stdout
    assert run(*flags, "-", input=schema, check=True).stdout == from_file
    assert json.loads(from_file)["ano"] in (1822, 1889)


def test_a_text_cut_within_its_form_says_so(run, export_folder):
    pytest.importorskip("llguidance", reason="constrained output: pip install 'ptbr-slm[constrain]'")
    flags = ("generate", "-m", export_folder, "O rio", "--seed", "1", "--regex", "[0-9]{30}")
    assert "a forma ficou incompleta: aumente -n" in run(*flags, "-n", "3", check=True).stderr
    whole = run(*flags, "-n", "40", check=True)
    assert re.fullmatch(r"O rio[0-9]{30}\n", whole.stdout)
    assert "forma" not in whole.stderr


def test_a_forbidden_token_does_not_come(run, export_folder):
    flags = ("generate", "-m", export_folder, "O rio", "-n", "1", "--temperature", "0", "--json")
    (first,) = json.loads(run(*flags, check=True).stdout)["tokens"]
    (other,) = json.loads(run(*flags, "--logit-bias", f"{first}=-100", check=True).stdout)["tokens"]
    assert other != first


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        ([""], "E_PROMPT", 2),
        ([], "E_PROMPT", 2),
        (["palavra " * 900], "E_PROMPT_TOO_LONG", 2),
        (["x", "--temperature", "nan"], "E_SAMPLING", 2),
        (["x", "--top-p", "2"], "E_SAMPLING", 2),
        (["x", "-n", "0"], "E_SAMPLING", 2),
        (["x", "--n", "0"], "E_SAMPLING", 2),
        (["x", "--logit-bias", "3"], "E_SAMPLING", 2),
        (["x", "--logit-bias", "3=1", "--logit-bias", "3=2"], "E_SAMPLING", 2),
        (["x", "--logit-bias", "99999=1"], "E_SAMPLING", 2),
        (["x", "--json-schema", "não há.json"], "E_NOT_FOUND", 1),
        (["-", "--json-schema", "-"], "E_USAGE", 2),
        (["x", "--device", "cuda"], "E_PROVIDER", 1),
    ],
)
def test_bad_input_is_three_lines_and_an_exit_code(run, export_folder, arguments, code, exit_code):
    done = run("generate", "-m", export_folder, *arguments, input="")
    assert done.stderr.startswith(f"Erro [{code}]: ")
    assert len(done.stderr.splitlines()) == 3
    assert (done.stdout, done.returncode) == ("", exit_code)


def test_a_folder_that_is_no_model_has_exit_code_3(run, tmp_path):
    done = run("generate", "-m", tmp_path, "x")
    assert (done.returncode, "E_MODEL_INVALID" in done.stderr) == (3, True)


def test_standard_input_that_is_no_utf8_is_refused(export_folder):
    command = [sys.executable, "-m", "ptbr_slm", "generate", "-m", str(export_folder), "-"]
    done = subprocess.run(command, input="ação".encode("latin-1"), capture_output=True, check=False)
    assert done.returncode == 2
    assert b"E_PROMPT" in done.stderr


def test_the_flags_have_the_defaults_of_the_library():
    flags = inspect.signature(generate).parameters
    for name, field in SamplingParams.__dataclass_fields__.items():
        if name in ("stop_token_ids", "first_logits"):  # of Python, and the first of the server too
            assert name not in flags
        elif name not in ("stop", "logit_bias"):  # lists on the command line
            assert flags[name.removesuffix("_s")].default == field.default, name


@pytest.fixture
def redirected(export_folder):
    """Run `ptbr-slm generate ... REDIRECTION`; what is not redirected is captured."""

    def run(redirection: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ptbr_slm", "generate", "-m", str(export_folder), *arguments]
        return subprocess.run(
            ["sh", "-c", f'exec "$@" {redirection}', "sh", *command],
            capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    return run


@needs_dev_full
def test_generate_without_stdin_asks_for_a_prompt(redirected):
    done = redirected("<&-")
    assert done.returncode == Exit.USAGE and done.stderr.startswith("Erro [E_PROMPT]")


@needs_dev_full
def test_generate_with_a_prompt_needs_no_stdin(redirected):
    done = redirected("<&-", "O rio", "-n", "4")
    assert done.returncode == 0 and done.stdout.startswith("O rio")


@needs_dev_full
@pytest.mark.parametrize(
    ("redirection", "code", "exit_code"),
    [(">&-", "E_OUTPUT", Exit.ERROR), ("> /dev/full", "E_DISK_FULL", Exit.RESOURCE)],
)
def test_generate_without_stdout_says_so(redirected, redirection, code, exit_code):
    done = redirected(redirection, "O rio", "-n", "4")
    assert done.returncode == exit_code and done.stderr.startswith(f"Erro [{code}]: a saída padrão")


@needs_dev_full
@pytest.mark.parametrize("redirection", ["2>&-", "2> /dev/full"])
def test_generate_without_stderr_writes_its_text(redirected, redirection):
    done = redirected(redirection, "O rio", "-n", "4")
    assert done.returncode == 0 and done.stdout.startswith("O rio")


@needs_dev_full
def test_generate_ends_when_its_reader_has_enough(export_folder):
    command = [sys.executable, "-m", "ptbr_slm", "generate", "-m", str(export_folder), "O rio", "-n", "400"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.read(5) == "O rio"
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait(60) == Exit.PIPE
