"""Memory does not grow with the input, measured in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="precisa de /proc/self/status (Linux)"
)

PEAK = """
import re, sys
from pathlib import Path
from ptbr_slm.data.document import DocumentCounts
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.data.pipeline import read_documents
from ptbr_slm.tokenizer import Tokenizer

source, counts = Path(sys.argv[1]), DocumentCounts()
if len(sys.argv) > 2:
    prepare([source], Path(sys.argv[2]), Tokenizer.load(Path(sys.argv[3])), counts=counts)
else:
    print(sum(len(document.text) for document in read_documents([source], counts=counts)))
print(dict(counts.dropped), dict(counts.repaired))
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def peak_mib(*arguments: Path) -> tuple[float, str]:
    """(peak of the resident memory in MiB, what was counted) of a process that reads or prepares."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    *counted, peak = done.stdout.strip().splitlines()
    return int(peak) / 1024, " ".join(counted)


def test_preparing_six_times_the_text_takes_the_same_memory(
    tmp_path: Path, tokenizer_file: Path, prose: Callable[..., str]
):
    peaks = []
    for megabytes in (1, 6):
        path = tmp_path / f"{megabytes}.jsonl"
        with path.open("w") as file:
            for i in range(megabytes * 1_000):
                file.write(json.dumps({"text": f"Documento {i}. {prose(i, 15)}"}, ensure_ascii=False) + "\n")
        assert path.stat().st_size > 0.8e6 * megabytes
        peaks.append(peak_mib(path, tmp_path / f"dados{megabytes}", tokenizer_file)[0])
    assert peaks[1] < peaks[0] + 12, f"{peaks} MiB"


def test_a_100_mb_line_of_text_is_read_whole_in_bounded_memory(tmp_path: Path):
    path = tmp_path / "linha.txt"
    line = "o mar bate na pedra e volta "
    with path.open("w") as file:
        for _ in range(100):
            file.write(line * (1_000_000 // len(line)))
    peak, counted = peak_mib(path)
    assert "{} {'split': 1}" in counted
    assert int(counted.split()[0]) > 0.99 * path.stat().st_size
    assert peak < 200, f"{peak} MiB"


def test_a_100_mb_json_line_is_counted_and_left_out_in_bounded_memory(tmp_path: Path):
    path = tmp_path / "linha.jsonl"
    with path.open("w") as file:
        file.write('{"text": "')
        for _ in range(100):
            file.write("mar e rio " * 100_000)
        file.write('"}\n{"text": "A linha seguinte ainda serve."}\n')
    peak, counted = peak_mib(path)
    assert counted == "29 {'too_long': 1} {}"
    assert peak < 120, f"{peak} MiB"
