"""Standard streams that are closed, full, or left by their reader: real descriptors, real processes."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ptbr_slm.cli.streams import SafeRaw
from ptbr_slm.errors import Exit

FULL = Path("/dev/full")
needs_dev_full = pytest.mark.skipif(not FULL.exists(), reason="/dev/full só existe no Linux")
needs_sh = pytest.mark.skipif(os.name == "nt", reason="precisa de um shell POSIX")


def shell(redirection: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`ptbr-slm ARGUMENTS REDIRECTION` in sh; what is not redirected is captured."""
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "ptbr_slm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd)


@needs_sh
def test_a_reader_that_leaves_is_no_error_and_no_success(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "ptbr_slm", "info", "--model-size", "nano"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == Exit.PIPE == 141


@needs_dev_full
@pytest.mark.parametrize(
    "arguments", [["info"], ["info", "--json"], ["--help"], ["train", "--help"], ["--version"]]
)
def test_a_full_disk_under_stdout_is_said_and_ends_with_5(tmp_path, arguments):
    done = shell("> /dev/full", *arguments, cwd=tmp_path)
    assert done.returncode == Exit.RESOURCE
    assert done.stderr.startswith("Erro [E_DISK_FULL]: a saída padrão") and "Traceback" not in done.stderr


@needs_sh
def test_a_closed_stdout_is_said_and_ends_with_1(tmp_path):
    done = shell(">&-", "info", cwd=tmp_path)
    assert done.returncode == Exit.ERROR and done.stderr.startswith("Erro [E_OUTPUT]:")
    assert "  onde: saída padrão\n" in done.stderr


@needs_dev_full
@pytest.mark.parametrize("redirection", ["2> /dev/full", "2>&-"])
def test_a_broken_stderr_changes_nothing_of_the_result(tmp_path, redirection):
    assert (whole := shell("", "info", cwd=tmp_path)).returncode == 0
    done = shell(redirection, "info", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, whole.stdout)
    assert shell(redirection, "info", "nada", cwd=tmp_path).returncode == Exit.ERROR
    assert shell(redirection, "info", "--nada", cwd=tmp_path).returncode == Exit.USAGE


@needs_sh
def test_a_file_never_takes_the_number_of_a_closed_descriptor(tmp_path):
    code = (
        "from ptbr_slm.cli.streams import make_streams_safe; make_streams_safe();"
        "import os, sys; f = open('arquivo', 'w'); os.write(2, b'de uma biblioteca em C');"
        "print(f.fileno(), sys.stdin.read(), file=f)"
    )
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code]
    assert subprocess.run(command, cwd=tmp_path, timeout=60).returncode == 0
    assert int((tmp_path / "arquivo").read_text()) > 2


def test_a_write_that_fails_is_dropped_and_remembered():
    reader, writer = os.pipe()
    os.close(reader)
    with io.FileIO(writer, "w") as raw:
        safe = SafeRaw(raw)
        text = io.TextIOWrapper(io.BufferedWriter(safe), "utf-8", line_buffering=True)
        text.write("olá\n" * 3)
        text.flush()
        assert safe.failure is not None and safe.failure.errno == errno.EPIPE


@needs_sh
def test_a_full_pipe_that_does_not_block_loses_nothing():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    got = bytearray()

    def read_late() -> None:
        time.sleep(0.1)
        while piece := os.read(reader, 1 << 16):
            got.extend(piece)

    thread = threading.Thread(target=read_late)
    thread.start()
    with io.FileIO(writer, "w") as raw:
        safe = SafeRaw(raw)
        assert safe.write(b"x" * 1_000_000) == 1_000_000
    thread.join(10)
    os.close(reader)
    assert len(got) == 1_000_000 and safe.failure is None
