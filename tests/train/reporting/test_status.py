"""The line beside the progress bar: what ends first, and what a person should notice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ptbr_slm.train.reporting.status import Pace, duration, status_line, time_left
from ptbr_slm.train.run import train
from ptbr_slm.train.survival.session import Deadline


@pytest.mark.parametrize(
    ("run_s", "session_s", "said"),
    [
        (125.0, None, "faltam 2min05s"),
        (125.0, 7200.0, "faltam 2min05s"),
        (90_000.0, 7200.0, "faltam 25h00min, mas a sessão acaba antes, em 2h00min"),
        (90_000.0, -3.0, "faltam 25h00min, mas a sessão acaba antes, em 0s"),
    ],
)
def test_it_says_which_ends_first_the_run_or_its_session(run_s, session_s, said):
    assert time_left(run_s, session_s) == said


def trainer(
    *, cuda: bool = False, scale: float | None = None, skipped: int = 0, age: float | None = None
) -> Any:
    """As much of a Trainer as the line reads: step 120 of 1,000, a second a step, 2,048 tokens."""
    pace = Pace()
    pace.add(2048, 1.0)
    deadline = None if age is None else Deadline(1000.0, lambda: age)
    return SimpleNamespace(
        config=SimpleNamespace(max_steps=1000, schedule=SimpleNamespace(minutes=0.0)),
        state=SimpleNamespace(step=120, skipped_steps=skipped),
        plan=SimpleNamespace(device=torch.device("cuda" if cuda else "cpu")),
        gauges=SimpleNamespace(memory_bytes=lambda: int(7.9 * 2**30)),
        scale=scale,
        pace=pace,
        deadline=deadline,
        save_s=10.0,
        evaluation_s=7.0,
        elapsed_s=120.0,
    )


def test_on_a_cpu_it_is_short():
    assert status_line(trainer(), 3.214) == "passo 120/1.000 · perda 3,21 · 2.048 tokens/s · faltam 14min40s"


def test_on_a_gpu_it_adds_memory_scale_and_skipped_steps():
    line = status_line(trainer(cuda=True, scale=65536.0, skipped=2), 3.2)
    assert line.endswith(" · 7,9 GiB · escala 2^16 · 2 saltados") and "\n" not in line


def test_the_session_is_over_when_its_last_step_must_be():
    line = status_line(trainer(age=400.0), 3.2)  # 1000 - 2 saves of 10 - an evaluation of 7 - the report's 3
    assert "mas a sessão acaba antes, em 9min30s" in line


def test_a_run_with_a_limit_says_so_while_it_goes_on(settings, recorder):
    train(settings({"max_time": "100h", "max_steps": 3}), recorder)
    assert "sessão" not in recorder.statuses[-1] and "faltam" in recorder.statuses[-1]


def test_durations_are_read_at_a_glance():
    assert [duration(s) for s in (9, 125, 3725, -5)] == ["9s", "2min05s", "1h02min", "0s"]
