"""Curves go where they are asked for; a logger is never in the way of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ptbr_slm.errors import SlmError
from ptbr_slm.train.reporting import loggers
from ptbr_slm.train.reporting.loggers import KINDS, numbers_of
from ptbr_slm.train.run import train

WATCHED = {"evaluation.every": 4, "evaluation.sample_tokens": 4, "evaluation.prompts": ["O rio"]}


def test_tensorboard_holds_the_curves_of_a_stopped_and_resumed_run(settings):
    pytest.importorskip("tensorboard", reason="pip install 'ptbr-slm[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    timed = {**WATCHED, "logger": ["tensorboard"]}
    config = settings({**timed, "max_time": "1s"})  # long gone: one step, then the rest
    assert train(config).step < 8
    train(settings(timed))
    read = EventAccumulator(str(config.output / "tensorboard"))
    read.Reload()
    losses = read.Scalars("train/loss")
    assert [point.step for point in losses] == list(range(1, 9))
    records = [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if record["event"] == "step"]
    assert [point.value for point in losses] == pytest.approx([r["loss"] for r in steps], rel=1e-6)
    assert {4, 8} <= {p.step for p in read.Scalars("eval/bits_per_byte")}
    assert {"train/learning_rate", "train/tokens_per_second"} <= set(read.Tags()["scalars"])
    assert any("O rio" in tag for tag in read.Tags()["tensors"])


def test_a_missing_library_is_said_before_anything_is_written(settings, monkeypatch):
    monkeypatch.setitem(KINDS, "wandb", (KINDS["wandb"][0], "wandb_que_nao_existe"))
    monkeypatch.setitem(loggers.missing_extra.__globals__["EXTRA_OF"], "wandb_que_nao_existe", "wandb")
    config = settings({"logger": ["wandb"]})
    with pytest.raises(SlmError) as caught:
        train(config)
    assert caught.value.code == "E_DEPENDENCY" and 'pip install "ptbr-slm[wandb]"' in caught.value.hint
    assert not config.output.exists()


def test_an_unknown_logger_names_those_that_there_are(settings):
    with pytest.raises(SlmError) as caught:
        train(settings({"logger": ["excel"]}))
    assert caught.value.code == "E_CONFIG" and "tensorboard" in caught.value.hint


class Faulty:
    """Works until step 3, then never again."""

    calls = 0

    def __init__(self, run, config, step) -> None:
        Faulty.calls = 0

    def numbers(self, group, values, step) -> None:
        Faulty.calls += 1
        print("isto sujaria o --json")
        if step >= 3:
            raise ConnectionError("o servidor caiu")

    def text(self, name, text, step) -> None: ...

    def close(self) -> None: ...


def test_a_logger_that_fails_warns_once_and_the_run_is_the_same(
    settings, tmp_path, recorder, weights, monkeypatch, capsys
):
    train(settings())
    monkeypatch.setitem(KINDS, "tensorboard", (Faulty, "torch"))
    result = train(settings({"logger": ["tensorboard"], "output": tmp_path / "logged"}), recorder)
    assert result.status == "done" and Faulty.calls == 3 and "sujaria" not in capsys.readouterr().out
    (warning,) = recorder.named("warning")
    assert warning["code"] == "logger" and "o servidor caiu" in warning["message"]
    assert weights(tmp_path / "run" / "final") == weights(tmp_path / "logged" / "final")


def test_a_logger_that_cannot_begin_is_let_go_too(settings, recorder, monkeypatch):
    def never(run, config, step):
        raise OSError("disco de rede sumiu")

    monkeypatch.setitem(KINDS, "trackio", (never, "torch"))
    assert train(settings({"logger": ["trackio"]}), recorder).status == "done"
    assert "disco de rede sumiu" in recorder.named("warning")[0]["message"]


def test_only_finite_numbers_are_logged():
    record = {
        "event": "step",
        "step": 3,
        "loss": float("nan"),
        "scale": 65536.0,
        "skipped": True,
        "mfu": None,
    }
    assert numbers_of(record) == {"scale": 65536.0}


OFFLINE = """
import socket, sys
def refuse(*_): raise OSError("sem rede")
connect = socket.socket.connect
def local(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        sys.stderr.write(f"REDE {address}\\n"); raise OSError("sem rede")
    return connect(self, address)
socket.socket.connect = local
from ptbr_slm.__main__ import main
"""


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_the_real_library_writes_below_the_run_without_a_network(name, train_arguments, tmp_path):
    pytest.importorskip(name, reason=f"pip install 'ptbr-slm[{name}]'")
    script = tmp_path / "sem_rede.py"
    script.write_text(OFFLINE + "sys.argv[0] = 'ptbr-slm'\nmain()\n")
    command = [sys.executable, str(script), *train_arguments(tmp_path / "run", max_steps=3), "--logger", name]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "TRACKIO"))}
    done = subprocess.run(
        [*command, "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**clean, "HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0 and "REDE" not in done.stderr, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]  # nothing else on stdout
    assert lines[-1]["event"] == "done" and not [e for e in lines if e["event"] == "warning" and "code" in e]
    assert holds_the_loss(name, tmp_path / "run", lines[1]["loss"])


def holds_the_loss(name: str, run: Path, loss: float) -> bool:
    if name == "wandb":
        return any(run.glob("wandb/offline-run-*/run-*.wandb"))
    import sqlite3

    (database,) = (run / "trackio").glob("ptbr-slm*.db")
    found = sqlite3.connect(database).execute("select step, metrics from metrics order by id").fetchall()
    rows = [(step, json.loads(text)) for step, text in found]
    losses = {step: values["train/loss"] for step, values in rows if "train/loss" in values}
    return list(losses) == [1, 2, 3] and losses[1] == pytest.approx(loss)
