"""One command, several processes: what a user sees, and what survives kill -9, SIGTERM and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from listeners import StopAfter
from ranks import free_port
from tiny_runs import assert_same_weights, losses, records

from ptbr_slm.train.parallel.environment import started_by_agent
from ptbr_slm.train.parallel.launch import handle_signals
from ptbr_slm.train.process import stop_signals
from ptbr_slm.train.run import train
from ptbr_slm.train.session import SignalGuard, StopBeforeTraining

TWO = {"ranks": 2, "evaluation.every": 4}


@pytest.fixture
def start(train_arguments: Callable[..., list[str]], tmp_path: Path) -> Callable[..., Any]:
    """Start `ptbr-slm train --json` in a group of its own, with a fault where one is given."""

    @contextmanager
    def run(output: Path, fault: str = "", **values: Any) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "ptbr_slm", *train_arguments(output, **values), "--json"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PTBR_SLM_FAULT": fault}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
            start_new_session=True, env=environment,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    return run


def until(process: subprocess.Popen[str], event: str, step: int = 0) -> list[dict[str, Any]]:
    """The JSON lines up to this event."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(json.loads(line))
        if lines[-1]["event"] == event and lines[-1].get("step", 0) >= step:
            return lines
    raise AssertionError(process.stderr.read() if process.stderr else "")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two ranks that nothing happened to, made by the first test that needs it."""
    return tmp_path_factory.mktemp("undisturbed") / "run"


@pytest.mark.slow
def test_two_ranks_started_by_the_command_do_the_run_of_one(start, settings, undisturbed):
    alone = train(settings({**TWO, "ranks": 0}))
    with start(undisturbed, **TWO) as process:
        lines = until(process, "done")
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and rest == "" and errors == "", "only one rank writes, and only to stdout"
    assert [line["event"] for line in lines].count("step") == 8, "only the main rank speaks"
    assert next(line for line in lines if line["event"] == "ranks")["world"] == 2
    assert lines[-1]["step"] == 8 and lines[-1]["bits_per_byte"] == pytest.approx(
        alone.bits_per_byte, rel=1e-5
    )
    assert losses(undisturbed) == pytest.approx(losses(alone.run), abs=1e-4)
    assert_same_weights(undisturbed / "final", alone.model, atol=1e-4)


@pytest.mark.slow
def test_kill_9_of_a_rank_restarts_both_and_the_result_is_the_undisturbed_runs(
    start, undisturbed, tmp_path, weights
):
    if not (undisturbed / "final").exists():
        with start(undisturbed, **TWO) as process:
            until(process, "done")
    with start(tmp_path / "killed", fault="kill@step.optimizer:6:1", **TWO) as process:
        lines = until(process, "done")
        assert process.wait(60) == 0
    assert [line["step"] for line in lines if line["event"] == "resume"] == [4]
    assert "reinício 1" in next(line for line in lines if line.get("code") == "restart")["message"]
    assert weights(tmp_path / "killed" / "final") == weights(undisturbed / "final")
    assert losses(tmp_path / "killed") == losses(undisturbed)


@pytest.mark.slow
def test_from_one_rank_to_two_by_sigterm_back_to_one_sees_the_same_samples(
    start, settings, tmp_path, monkeypatch
):
    # A rate at which the last bits of a sum do not grow into another result.
    long = {"max_steps": 300, "checkpoint.every": 0, "optimizer.learning_rate": 3e-4}
    alone = train(settings({**long, "output": tmp_path / "alone"}))
    moved = settings({**long, "output": tmp_path / "moved"})
    assert train(moved, StopAfter(step=3)).step == 3
    with start(moved.output, **long, ranks=2) as process:
        until(process, "step", 20)
        process.send_signal(signal.SIGTERM)  # to the parent only
        last = until(process, "done")[-1]
        assert process.wait(60) == 75
    assert last["reason"] == "sigterm" and 20 <= last["step"] < 300
    assert len(list((moved.output / "checkpoints").glob("step-*"))) == 2, "one a stop"
    assert train(moved).status == "done"
    assert [r["tokens"] for r in records(moved.output)] == [r["tokens"] for r in records(alone.run)]
    assert losses(moved.output) == pytest.approx(losses(alone.run), abs=1e-3)


@pytest.fixture
def launched() -> Iterator[None]:
    """This process has the signal handlers of a launched rank."""
    before = {number: signal.getsignal(number) for number in stop_signals()}
    handle_signals()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, StopBeforeTraining)]
)
def test_a_signal_says_that_nothing_was_trained_only_before_the_training(launched, number, raised):
    """The ranks get a signal one after the other, and all of them stop at the first one's: the last one's
    own signal may come when it has saved already.
    """
    with SignalGuard() as guard:
        pass
    signal.raise_signal(number)
    assert guard.reason is None
    handle_signals()
    with pytest.raises(raised):
        signal.raise_signal(number)


@pytest.mark.slow
def test_ctrl_c_to_the_group_saves_shards_once_and_one_process_goes_on_from_them(start, settings, tmp_path):
    config = settings({"max_steps": 300, "checkpoint.every": 0})
    with start(config.output, max_steps=300, ranks=2, parallel="fsdp", **{"checkpoint.every": 0}) as process:
        until(process, "step", 5)
        os.killpg(process.pid, signal.SIGINT)
        last = until(process, "done")[-1]
        assert process.wait(60) == 130
    assert last["reason"] == "interrupt"
    (checkpoint,) = (config.output / "checkpoints").glob("step-*")
    assert len(list((checkpoint / "training" / "shards").glob("*.safetensors"))) == 2
    assert train(config).status == "done"
    assert len(records(config.output)) == 300


@pytest.mark.slow
@pytest.mark.parametrize(("parallel", "fault"), [("ddp", "kill@step.optimizer:6:1"), ("fsdp", "")])
def test_neither_the_launcher_nor_its_ranks_pickle(start, tmp_path, monkeypatch, no_pickle, parallel, fault):
    """Meeting, deciding, a restart, checkpoints, evaluation and the answer to the parent's pipe included."""
    for name, value in no_pickle(tmp_path / "pickles").items():
        monkeypatch.setenv(name, value)
    with start(tmp_path / "run", fault=fault, **TWO, parallel=parallel) as process:
        lines = until(process, "done")
        assert process.wait(60) == 0
    assert lines[-1]["step"] == 8 and [line["event"] for line in lines].count("resume") == bool(fault)
    assert not (tmp_path / "pickles").exists(), (tmp_path / "pickles").read_text()


def test_ranks_of_one_machine_meet_where_only_that_machine_reaches_them():
    from torch.distributed.elastic.rendezvous import RendezvousParameters

    from ptbr_slm.train.parallel.rendezvous import BACKEND, LoopbackRendezvous

    meeting = LoopbackRendezvous(RendezvousParameters(BACKEND, "", "teste", 1, 1))
    first, second = meeting.next_rendezvous(), meeting.next_rendezvous()
    address = first.bootstrap_store_info
    assert address is not None and address.master_addr == "127.0.0.1"
    first.store.set("key", "of the first start")
    assert not second.store.check(["key"]), "a restart finds nothing of the start before"
    socket.create_connection(("127.0.0.1", address.master_port), timeout=5).close()
    with pytest.raises(OSError):  # a store that listens on every interface answers here, too
        socket.create_connection(("127.0.0.2", address.master_port), timeout=5).close()


@pytest.mark.slow
def test_an_error_of_the_users_is_told_once_and_not_tried_again(start, tmp_path):
    with start(tmp_path / "run", ranks=2, batch_size=1, grad_accum=1) as process:
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and out == "" and not (tmp_path / "run" / "checkpoints").exists()
    assert errors.count("Erro [E_CONFIG]") == 1 and "--grad-accum 2" in errors and "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("rendezvous", ["static", "c10d"])
def test_two_nodes_under_torchrun_do_the_run_of_one_process(
    train_arguments, settings, tmp_path, monkeypatch, no_pickle, rendezvous
):
    """Two agents that meet over TCP, as on two machines; one rank each. As documented, they do not pickle."""
    port = free_port()
    meet = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=teste"]
    if rendezvous == "static":
        meet = ["--master-addr=127.0.0.1", f"--master-port={port}"]
        for name, value in no_pickle(tmp_path / "pickles").items():
            monkeypatch.setenv(name, value)
    nodes = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1",
             *meet, f"--node-rank={number}", "--local-addr=127.0.0.1",
             "-m", "ptbr_slm", *train_arguments(tmp_path / "nodes"), "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for number in range(2)
    ]  # fmt: skip
    outputs = [node.communicate(timeout=120) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    printed, silent = sorted((out for out, _ in outputs), key=len, reverse=True)
    assert silent == "" and json.loads(printed.splitlines()[-1])["step"] == 8
    assert not (tmp_path / "pickles").exists(), (tmp_path / "pickles").read_text()
    alone = train(settings())
    assert losses(tmp_path / "nodes") == pytest.approx(losses(alone.run), abs=1e-4)
    assert_same_weights(tmp_path / "nodes" / "final", alone.model, atol=1e-4)


def test_without_torchrun_a_process_is_alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert not started_by_agent()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert started_by_agent()
