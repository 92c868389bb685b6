"""Injected faults happen at their point, at their time, on their rank, and never unasked."""

import errno
import signal
import subprocess
import sys

import pytest

from ptbr_slm import faults
from ptbr_slm.faults import maybe_fail


@pytest.fixture(autouse=True)
def _forget():
    faults.reset()
    yield
    faults.reset()


def test_unarmed_points_do_nothing():
    assert not any(maybe_fail("checkpoint.after_weights") for _ in range(3))


def test_a_fault_strikes_once_at_its_nth_time(monkeypatch):
    monkeypatch.setenv("PTBR_SLM_FAULT", "nan@step.loss:3")
    assert [maybe_fail("step.loss") for _ in range(5)] == [False, False, True, False, False]
    assert not maybe_fail("step.backward")


def test_a_fault_strikes_only_its_rank(monkeypatch):
    monkeypatch.setenv("PTBR_SLM_FAULT", "nan@step.loss:1:1")
    assert not maybe_fail("step.loss")
    monkeypatch.setenv("RANK", "1")
    assert maybe_fail("step.loss")


def test_two_faults_and_their_kinds(monkeypatch):
    monkeypatch.setenv("PTBR_SLM_FAULT", "enospc@checkpoint.after_weights;error@step.backward:2")
    with pytest.raises(OSError) as caught:
        maybe_fail("checkpoint.after_weights")
    assert caught.value.errno == errno.ENOSPC
    maybe_fail("step.backward")
    with pytest.raises(RuntimeError, match=r"step\.backward"):
        maybe_fail("step.backward")


def test_out_of_memory_is_torchs_own_error(monkeypatch):
    import torch

    monkeypatch.setenv("PTBR_SLM_FAULT", "oom@step.forward")
    with pytest.raises(torch.OutOfMemoryError):
        maybe_fail("step.forward")


def test_kill_is_sigkill():
    code = "from ptbr_slm.faults import maybe_fail; maybe_fail('here')"
    done = subprocess.run([sys.executable, "-c", code], env={"PTBR_SLM_FAULT": "kill@here"}, check=False)
    assert done.returncode == -signal.SIGKILL
