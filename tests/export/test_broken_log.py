"""`export` whose log breaks: the export is made all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ptbr_slm.errors import Exit
from ptbr_slm.storage.manifest import read_manifest

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full só existe no Linux")
QUICK = ("--precision", "fp32")


def test_an_export_whose_log_goes_into_head_is_made(tied, tmp_path):
    command = [sys.executable, "-m", "ptbr_slm", "export", str(tied), "-o", str(tmp_path / "e"), *QUICK]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline()
        process.stderr.close()  # `2>&1 >/dev/null | head -1`
        assert process.wait(120) == Exit.OK
    assert read_manifest(tmp_path / "e").kind == "export"


def test_an_export_without_any_output_is_made_and_says_by_its_code_that_it_was_not_heard(tied, tmp_path):
    command = [sys.executable, "-m", "ptbr_slm", "export", str(tied), "-o", str(tmp_path / "e"), *QUICK]
    done = subprocess.run(["sh", "-c", 'exec "$@" >&- 2>&- <&-', "sh", *command], env=os.environ, timeout=120)
    assert done.returncode == Exit.ERROR
    assert read_manifest(tmp_path / "e").kind == "export"
