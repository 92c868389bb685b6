"""Real processes, really stopped: SIGKILL at random moments, SIGTERM, Ctrl-C, and the session's time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ptbr_slm.train.reporting.metrics import read_metrics
from ptbr_slm.train.run import train
from ptbr_slm.train.session import Deadline

needs_sighup = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="o Windows não tem SIGHUP")
IN_ITS_OWN_TERMINAL = (
    "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\nfrom ptbr_slm.cli.main import main; main()"
)
UNDER_NOHUP = (
    "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\nfrom ptbr_slm.cli.main import main; main()"
)
LONG = {"max_steps": 150, "checkpoint.every": 5, "evaluation.every": 50}
DIE_BEFORE_THE_RENAME = (
    "import os, signal, sys\n"
    "from ptbr_slm.storage import atomic\n"
    "publish = atomic.publish_folder\n"
    "def die(work):\n"
    "    if work.name == 'step-00000005': os.kill(os.getpid(), signal.SIGKILL)\n"
    "    publish(work)\n"
    "atomic.publish_folder = die\n"
    "from ptbr_slm.cli.main import main\n"
    "main()\n"
)


def start(arguments: list[str], python: tuple[str, ...] = ("-m", "ptbr_slm")) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *python, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
    )


def wait_for_step(process: subprocess.Popen[bytes], run: Path, step: int) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if any(r["step"] >= step for r in read_metrics(run / "metrics.jsonl")[-1:]):
            return
        time.sleep(0.01)


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    try:
        _, errors = process.communicate(timeout=100)
    except subprocess.TimeoutExpired:
        process.kill()  # or it would train beside every test that follows
        raise
    return process.returncode, errors.decode()


@pytest.mark.slow
def test_resume_after_sigkill_gives_the_weights_of_an_undisturbed_run(
    settings, train_arguments, tmp_path, weights
):
    train(settings(LONG))
    run, draw = tmp_path / "killed", random.Random(os.getpid())
    arguments = train_arguments(run, **LONG)
    process = start(arguments, ("-c", DIE_BEFORE_THE_RENAME))  # a whole checkpoint, not yet under its name
    assert finish(process)[0] == -signal.SIGKILL
    assert [p.name.startswith(".tmp-step-00000005") for p in (run / "checkpoints").iterdir()] == [True]
    for step in (40, 90):
        process = start(arguments)
        wait_for_step(process, run, step)
        time.sleep(draw.uniform(0, 0.1))
        process.kill()
        assert finish(process)[0] == -signal.SIGKILL, "the run ended before the kill"
    assert train(settings({**LONG, "output": run})).status == "done"
    assert weights(run / "final") == weights(tmp_path / "run" / "final")
    losses = [[(r["step"], r["loss"]) for r in read_metrics(f / "metrics.jsonl") if r["event"] == "step"]
              for f in (run, tmp_path / "run")]  # fmt: skip
    assert losses[0] == losses[1]
    assert not list(run.rglob(".tmp-*"))


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 75), (signal.SIGINT, 130), pytest.param("SIGHUP", 75, marks=needs_sighup)],
)
def test_signals_end_a_real_process_with_its_work_saved(train_arguments, tmp_path, number, code):
    run = tmp_path / "run"
    process = start(train_arguments(run, max_steps=100_000, **{"checkpoint.every": 0}))
    wait_for_step(process, run, 3)
    process.send_signal(getattr(signal, number) if isinstance(number, str) else number)
    returned, errors = finish(process)
    assert returned == code and "Traceback" not in errors
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    last = read_metrics(run / "metrics.jsonl")[-1]["step"]
    assert checkpoint.name == f"step-{last:08d}"


@needs_sighup
def test_a_terminal_that_closes_leaves_a_saved_run(train_arguments, tmp_path):
    run, (terminal, its_end) = tmp_path / "run", os.openpty()
    arguments = train_arguments(run, max_steps=100_000, **{"checkpoint.every": 0, "evaluation.every": 1})
    process = subprocess.Popen(
        [sys.executable, "-c", IN_ITS_OWN_TERMINAL, *arguments],
        stdin=its_end, stdout=its_end, stderr=its_end, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    os.close(its_end)
    wait_for_step(process, run, 3)
    os.close(terminal)  # SIGHUP, and from now on every write fails
    assert process.wait(100) == 75
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    assert read_metrics(run / "metrics.jsonl")[-1]["step"] == int(checkpoint.name.removeprefix("step-"))


@pytest.mark.slow
@needs_sighup
def test_two_ranks_save_when_their_terminal_closes_however_often_it_says_so(train_arguments, tmp_path):
    run = tmp_path / "run"
    process = start(train_arguments(run, max_steps=100_000, ranks=2, **{"checkpoint.every": 0}))
    wait_for_step(process, run, 3)
    for _ in range(4):  # the shell's, the kernel's, and some more
        process.send_signal(signal.SIGHUP)
        time.sleep(0.05)
    returned, errors = finish(process)
    assert returned == 75 and "Traceback" not in errors
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    assert read_metrics(run / "metrics.jsonl")[-1]["step"] == int(checkpoint.name.removeprefix("step-"))


@needs_sighup
def test_under_nohup_a_run_outlives_its_terminal(train_arguments, tmp_path):
    run = tmp_path / "run"
    process = start(train_arguments(run, max_steps=60), ("-c", UNDER_NOHUP))
    wait_for_step(process, run, 3)
    process.send_signal(signal.SIGHUP)
    assert finish(process)[0] == 0 and (run / "final").is_dir()


def test_the_session_time_is_counted_from_the_start_of_the_process(settings):
    stopped = train(settings({"max_time": "1s"}))  # this process is older
    assert (stopped.reason, stopped.exit_code, stopped.step) == ("max_time", 75, 1)
    assert stopped.model.is_dir() and (stopped.run / "report" / "report.html").is_file()
    assert train(settings({"max_time": "99h"})).status == "done"


def test_the_deadline_leaves_room_for_a_step_two_saves_and_an_evaluation():
    age = [0.0]
    deadline = Deadline(100.0, lambda: age[0])
    age[0] = 59.0
    assert not deadline.reached(step_s=10, save_s=10, evaluation_s=5)  # and 3 s for the report
    age[0] = 63.0
    assert deadline.reached(step_s=10, save_s=10, evaluation_s=5)
    assert not Deadline(None, lambda: 1e9).reached(10, 10)
