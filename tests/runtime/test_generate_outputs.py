"""`generate` with a standard stream that is closed, full, or left by its reader."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ptbr_slm.errors import Exit

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full só existe no Linux")
TEXT = ("O rio", "-n", "4")


@pytest.fixture
def generate(export_folder):
    """Run `ptbr-slm generate ... REDIRECTION`; what is not redirected is captured."""

    def run(redirection: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ptbr_slm", "generate", "-m", str(export_folder), *arguments]
        return subprocess.run(
            ["sh", "-c", f'exec "$@" {redirection}', "sh", *command],
            capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    return run


def test_generate_without_stdin_asks_for_a_prompt(generate):
    done = generate("<&-")
    assert done.returncode == Exit.USAGE and done.stderr.startswith("Erro [E_PROMPT]")


def test_generate_with_a_prompt_needs_no_stdin(generate):
    done = generate("<&-", *TEXT)
    assert done.returncode == 0 and done.stdout.startswith("O rio")


@pytest.mark.parametrize(
    ("redirection", "code", "exit_code"),
    [(">&-", "E_OUTPUT", Exit.ERROR), ("> /dev/full", "E_DISK_FULL", Exit.RESOURCE)],
)
def test_generate_without_stdout_says_so(generate, redirection, code, exit_code):
    done = generate(redirection, *TEXT)
    assert done.returncode == exit_code and done.stderr.startswith(f"Erro [{code}]: a saída padrão")


@pytest.mark.parametrize("redirection", ["2>&-", "2> /dev/full"])
def test_generate_without_stderr_writes_its_text(generate, redirection):
    done = generate(redirection, *TEXT)
    assert done.returncode == 0 and done.stdout.startswith("O rio")


def test_generate_ends_when_its_reader_has_enough(export_folder):
    command = [sys.executable, "-m", "ptbr_slm", "generate", "-m", str(export_folder), "O rio", "-n", "400"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.read(5) == "O rio"
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait(60) == Exit.PIPE
