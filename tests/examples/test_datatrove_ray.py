"""The example on a local Ray: the documents of `data prepare`, also where workers are killed."""

from __future__ import annotations

import importlib.metadata  # datatrove uses it without importing it
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from page_text import PAGE

from ptbr_slm.data.index import SPLITS
from ptbr_slm.data.mixture import plan
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.recipe import SourceOptions
from ptbr_slm.data.records import GROUPS, read_records
from ptbr_slm.tokenizer import Tokenizer

assert importlib.metadata
pytest.importorskip("ray", reason='pip install "ptbr-slm[scale]"')
pytest.importorskip("datatrove.executor", reason='pip install "ptbr-slm[scale]"')

ROOT = Path(__file__).resolve().parents[2]
PAUSED = """
import os, sys, time
from pathlib import Path
import datatrove_ray

steps = datatrove_ray.steps

def pause(data, rank=0, tasks=1):
    for document in data:
        paused, go_on = Path("paused"), Path("go-on")
        if rank == 1 and not go_on.exists():
            Path("paused.new").write_text(str(os.getpid()))
            Path("paused.new").rename(paused)
            while not go_on.exists():
                time.sleep(0.05)
        yield document

def paused_steps(job):
    found = steps(job)
    found[0][2].insert(1, pause)
    return found

datatrove_ray.steps = paused_steps
datatrove_ray.main()
"""
"""The example with one more block, in which the second task waits."""


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    folder = tmp_path / "textos"
    folder.mkdir()
    sentences = PAGE.split(". ")
    for number in range(8):
        text = ". ".join([*sentences[number:], f"Esta é a página {number}.", *sentences[:number]])
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    (folder / "copia.txt").write_bytes((folder / "2.txt").read_bytes())
    (folder / "latin.txt").write_bytes("é assim".encode("latin-1"))
    rows = [PAGE, "curto", "This page is not in Portuguese, and it goes on in English for a while. " * 4]
    lines = [json.dumps({"text": text}) for text in rows]
    (folder / "z.jsonl").write_text("\n".join([*lines, "{quebrado"]), encoding="utf-8")
    tokenizer = Tokenizer.train([PAGE], 400)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    (tmp_path / "paused.py").write_text(PAUSED, encoding="utf-8")
    return tmp_path


def start(workplace: Path) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "export"), str(ROOT / "examples" / "scale")])
    options = ["--tokenizer", "tokenizer.json", "--preset", "curated", "--tasks", "2", "--memory-gb", "0.5"]
    return subprocess.Popen(
        [sys.executable, "paused.py", "textos", "-o", "dados", *options, "--valid-fraction", "0.2"],
        cwd=workplace,
        env={**os.environ, "PYTHONPATH": path, "HOME": str(workplace), "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_paused_worker(workplace: Path, run: subprocess.Popen[str]) -> None:
    """Kill the worker of the second task when the first task is done."""
    paused, deadline = workplace / "paused", time.monotonic() + 120
    while not paused.exists() or not list(workplace.glob("dados.trabalho/*/logs/textos/completions/00000")):
        assert run.poll() is None and time.monotonic() < deadline, run.stdout and run.stdout.read()
        time.sleep(0.05)
    worker = int(paused.read_text())
    paused.unlink()
    os.kill(worker, signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_run_is_repeated_and_gives_what_prepare_gives(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
):
    run = start(workplace)
    kill_paused_worker(workplace, run)
    run.kill()
    run.communicate()
    [first] = (workplace / "dados.trabalho").glob("*/textos/00000/lines")
    before = first.stat().st_mtime_ns

    run = start(workplace)
    kill_paused_worker(workplace, run)  # Ray repeats the task
    (workplace / "go-on").touch()
    output, _ = run.communicate(timeout=200)
    assert run.returncode == 0, output
    assert first.stat().st_mtime_ns == before

    recipe = plan([Path("textos")], options=SourceOptions(preset="curated"))
    tokenizer = Tokenizer.load(workplace / "tokenizer.json")
    monkeypatch.chdir(workplace)
    expected = prepare([], workplace / "uma", tokenizer, recipe=recipe, valid_fraction=0.2)
    found = PreparedData.open(workplace / "dados")
    for name in SPLITS:
        ours, theirs = found.split(name), expected.split(name)
        assert theirs.documents > 0
        assert np.array_equal(ours.document_offsets(), theirs.document_offsets())
        assert np.array_equal(ours.read(0, ours.tokens), theirs.read(0, theirs.tokens))
    for group in GROUPS:
        assert list(read_records(found.folder, group)) == list(read_records(expected.folder, group))
    assert found.index.dropped == expected.index.dropped
    assert set(found.index.dropped) >= {"duplicate", "not_utf8", "bad_json", "too_short"}
