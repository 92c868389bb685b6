"""The frame of the command line: help, versions, usage errors, the three lines."""

import json
import os
import subprocess
import sys
import time

import pytest
import typer

from ptbr_slm.cli.command import as_slm_error, execute
from ptbr_slm.cli.main import app
from ptbr_slm.cli.output import Mode, Output, Report, table
from ptbr_slm.cli.usage import USAGE_ERROR, usage_error
from ptbr_slm.errors import Exit, SlmError
from ptbr_slm.text import human_bytes, number

VERBS = [
    "quickstart",
    "data",
    "tokenizer",
    "info",
    "plan",
    "doctor",
    "train",
    "export",
    "verify",
    "generate",
    "chat",
    "app",
]


def test_help_lists_every_verb_and_answers_quickly(cli):
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = cli("--help")
        times.append(time.perf_counter() - start)
        assert done.returncode == 0
    for verb in VERBS:
        assert f"  {verb} " in done.stdout
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    bare = time.perf_counter() - start
    # The budget of 0.4 s is benchmarked, not asserted: a machine may be slow, or shared.
    assert min(times) < max(1.5, 30 * bare)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_in_portuguese(cli, verb):
    done = cli(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Uso: ptbr-slm") and len(done.stdout.splitlines()) > 5
    for english in ("Usage", "default", "required", "<", "Show ", "Options", "Commands"):
        assert english not in done.stdout


def test_a_typo_is_a_usage_error(cli):
    done = cli("trian")
    assert done.returncode == Exit.USAGE and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("typed", "said", "next"),
    [
        ("trian", "o comando trian não existe.", "Quis dizer train?"),
        ("data prepar", "o comando prepar não existe.", "Quis dizer prepare?"),
        ("train --outptu x", "a opção --outptu não existe.", "Quis dizer --output?"),
        ("train -z", "a opção -z não existe.", "ptbr-slm train --help"),
        ("train --seed", "a opção --seed precisa de um valor.", "ptbr-slm train --help"),
        ("train --quiet=1", "a opção --quiet não leva valor.", "ptbr-slm train --help"),
        ("train --seed abc", "--seed leva um número inteiro, e não 'abc'.", "ptbr-slm train --help"),
        ("generate -m x -n1.5", "--max-new-tokens (-n) leva um número inteiro, e não '1.5'.", "--help"),
        ("generate -m x --top-p muito", "--top-p leva um número, e não 'muito'.", "--help"),
        ("find-lr --steps=3", "--steps leva um número inteiro de 10 em diante, e não '3'.", "--help"),
        ("export m -o x --precision fp7", "leva um destes: fp32, fp16, int8, int4, e não 'fp7'.", "--help"),
        ("export", "falta o argumento MODELO.", "ptbr-slm export --help"),
        ("export m", "falta a opção --output (-o).", "ptbr-slm export --help"),
        ("kaggle init p", "falta a opção --user (ou a variável KAGGLE_USERNAME).", "--help"),
        ("generate -m x O rio corre", "argumentos a mais: rio corre.", "entre aspas"),
    ],
)
def test_what_was_typed_wrong_is_said_in_our_three_lines_and_in_portuguese(
    monkeypatch, capsys, typed, said, next
):
    monkeypatch.setattr(sys, "argv", ["ptbr-slm", *typed.split()])
    monkeypatch.delenv("KAGGLE_USERNAME", raising=False)
    root = typer.main.get_command(app)
    with pytest.raises(USAGE_ERROR) as caught:
        root.main(prog_name="ptbr-slm", standalone_mode=False)
    error = usage_error(caught.value, root, typed.split())
    lines = str(error).splitlines()
    assert (error.code, error.exit_code, len(lines)) == ("E_USAGE", Exit.USAGE, 3)
    assert said in lines[0] and lines[1].startswith("  onde: ptbr-slm") and next in lines[2]


def test_a_usage_error_is_all_that_is_printed_and_ends_with_2(cli):
    done = cli("train", "--seed", "abc", "--json")
    assert done.returncode == Exit.USAGE and not done.stdout
    assert done.stderr == (
        "Erro [E_USAGE]: --seed leva um número inteiro, e não 'abc'.\n"
        "  onde: ptbr-slm train\n"
        "  Veja as opções:  ptbr-slm train --help\n"
    )


def test_an_environment_variable_that_cannot_be_read_is_a_usage_error(cli):
    done = cli("info", env={"PTBR_SLM_DEBUG": "talvez"})
    assert done.returncode == Exit.USAGE and done.stderr.startswith("Erro [E_USAGE]: --debug leva 1 ou 0.")


def test_no_verb_shows_the_help_and_is_a_usage_error(cli):
    done = cli()
    assert done.returncode == Exit.USAGE and "Uso:" in done.stdout + done.stderr
    assert "--install-completion" in done.stdout + done.stderr


def test_the_version_is_printed(cli):
    assert cli("--version").stdout.startswith("ptbr-slm 0.")


def test_an_ascii_console_does_not_die_on_an_accent(cli):
    done = cli("data", "--help", env={"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr


def test_a_closed_pipe_is_silent():
    done = subprocess.run(
        f"{sys.executable} -m ptbr_slm --help | head -1",
        shell=True,
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (SlmError("E_VERIFY", "x", hint="y"), "E_VERIFY", Exit.VERIFY),
        (OSError(28, "No space left on device"), "E_DISK_FULL", Exit.RESOURCE),
        (MemoryError(), "E_MEMORY", Exit.RESOURCE),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "E_MEMORY", Exit.RESOURCE),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), "E_DEPENDENCY", Exit.ERROR),
        (ZeroDivisionError("x"), "E_INTERNAL", Exit.ERROR),
    ],
)
def test_any_exception_ends_as_lines_and_an_exit_code(capsys, error, code, exit_code):
    def fail(out):
        raise error

    assert execute(fail, Output()) == exit_code
    printed = capsys.readouterr()
    assert printed.err.startswith(f"Erro [{code}]") and "Traceback" not in printed.err and not printed.out
    assert as_slm_error(error).code == code


def test_debug_shows_the_traceback(capsys):
    def fail(out):
        raise ZeroDivisionError("x")

    execute(fail, Output(debug=True))
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_exits_130(capsys):
    def interrupt(out):
        raise KeyboardInterrupt

    assert execute(interrupt, Output()) == Exit.INTERRUPTED


def test_each_mode_prints_its_part_on_stdout(capsys):
    report = Report({"a": 1}, "olá", brief="b")
    for mode, expected in ((Mode.HUMAN, "olá\n"), (Mode.QUIET, "b\n"), (Mode.JSON, '{"a": 1}\n')):
        Output(mode).report(report)
        assert capsys.readouterr().out == expected
    Output(Mode.JSON).event({"event": "done"})
    Output(Mode.HUMAN).event({"event": "done"})
    assert json.loads(capsys.readouterr().out) == {"event": "done"}


def test_numbers_and_tables_are_brazilian_and_aligned():
    assert number(1234567.891, 2) == "1.234.567,89"
    assert human_bytes(1536) == "1,5 KiB" and human_bytes(3) == "3 B"
    laid = table([["a", "1"], ["bcd", "22"]], header=["nome", "n"])
    assert laid.splitlines() == ["nome   n", "----  --", "a      1", "bcd   22"]
