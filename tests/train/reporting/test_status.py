"""The line beside the progress bar: what ends first, and what a person should notice."""

from __future__ import annotations

from typing import Any

import pytest

from ptbr_slm.train.reporting.status import Status, duration, time_left
from ptbr_slm.train.run import train
from ptbr_slm.train.session import Deadline


@pytest.mark.parametrize(
    ("run_s", "session_s", "expected"),
    [
        (125.0, None, "faltam 2min05s"),
        (125.0, 7200.0, "faltam 2min05s"),
        (90_000.0, 7200.0, "faltam 25h00min, mas a sessão acaba antes, em 2h00min"),
        (90_000.0, -3.0, "faltam 25h00min, mas a sessão acaba antes, em 0s"),
    ],
)
def test_it_says_which_ends_first_the_run_or_its_session(run_s, session_s, expected):
    assert time_left(run_s, session_s) == expected


def status(**values: Any) -> str:
    """The line at step 120 of 1,000, at a second and 2,048 tokens a step."""
    facts = {"step": 120, "max_steps": 1000, "loss": 3.214, "tokens_per_second": 2048.0, "run_left_s": 880.0}
    return Status(**{**facts, **values}).line()


def test_on_a_cpu_it_is_short():
    assert status() == "passo 120/1.000 · perda 3,21 · 2.048 tokens/s · faltam 14min40s"
    assert status(max_steps=None).startswith("passo 120 · ")


def test_on_a_gpu_it_adds_memory_scale_and_skipped_steps():
    line = status(gpu_memory_bytes=int(7.9 * 2**30), scale=65536.0, skipped_steps=2)
    assert line.endswith(" · 7,9 GiB · escala 2^16 · 2 saltados") and "\n" not in line


def test_the_session_is_over_when_its_last_step_must_be():
    deadline = Deadline(1000.0, lambda: 400.0)  # 2 saves of 10, an evaluation of 7 and the report's 3
    line = status(session_left_s=deadline.end(10.0, 7.0) - deadline.age())
    assert "mas a sessão acaba antes, em 9min30s" in line


def test_a_run_with_a_limit_says_so_while_it_goes_on(settings, recorder):
    train(settings({"max_time": "100h", "max_steps": 3}), recorder)
    assert "sessão" not in recorder.statuses[-1] and "faltam" in recorder.statuses[-1]


def test_durations_are_read_at_a_glance():
    assert [duration(s) for s in (9, 125, 3725, -5)] == ["9s", "2min05s", "1h02min", "0s"]
