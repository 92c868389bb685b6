"""What a training on a card must do, each as a user's command: on a real card and on the simulated one.

`run(*arguments, **environment)` starts `ptbr-slm` as a process of its own. Each result is held against the
same command on the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from tiny_runs import losses

Run = Callable[..., CompletedProcess[str]]
Arguments = Callable[..., list[str]]
"""(output, **settings) -> the command line of a tiny training."""

SETTINGS: dict[str, Any] = {"max_steps": 6, "checkpoint.every": 2, "evaluation.every": 3}
CLOSE = 5e-3
"""Of the loss, in nats: fp16 on a card against fp32 on the CPU, over six steps at a rate of 0.01."""


def record(done: CompletedProcess[str]) -> list[dict[str, Any]]:
    """The events that --json wrote, the last one `done`."""
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["event"] == "done"
    return events


def weights(output: Path) -> dict[str, np.ndarray]:
    return load_file(output / "final" / "model.safetensors")


def trains_from_nothing_to_final_and_goes_on_after_a_kill(
    run: Run, arguments: Arguments, folder: Path, *, exact: bool, ranks: int = 1
) -> None:
    """In fp16, killed with SIGKILL while a checkpoint is written, and the same command again.

    exact: whether two runs give the same bits, as on the simulated card. On a real one the backward pass of
    memory-efficient attention adds in any order.
    """
    many = {"ranks": ranks, "parallel": "ddp"} if ranks > 1 else {"parallel": "none"}
    events = record(run(*arguments(folder / "whole", **SETTINGS, **many), "--json"))
    start = next(event for event in events if event["event"] == "start")
    assert start["device"].startswith("cuda") and start["precision"] == "fp16"
    if ranks > 1:
        assert next(e for e in events if e["event"] == "ranks")["world"] == ranks
    command = arguments(folder / "cut", **SETTINGS, **many)
    if ranks == 1:
        killed = run(*command, "--json", PTBR_SLM_FAULT="kill@checkpoint.before_rename:2")
        assert killed.returncode == -9
        events = record(run(*command, "--json"))
        assert next(event for event in events if event["event"] == "resume")["step"] == 2
    else:  # the agent starts the ranks again, from the last checkpoint
        events = record(run(*command, "--json", PTBR_SLM_FAULT="kill@checkpoint.before_rename:2:0"))
        assert any(event.get("code") == "restart" for event in events)
    record(run(*arguments(folder / "cpu", **SETTINGS, device="cpu"), "--json"))
    whole, cut, cpu = (losses(folder / name) for name in ("whole", "cut", "cpu"))
    assert len(whole) == len(cut) == len(cpu) == SETTINGS["max_steps"]
    np.testing.assert_allclose(whole, cpu, atol=CLOSE)
    if exact:
        assert whole == cut
        for name, weight in weights(folder / "whole").items():
            np.testing.assert_array_equal(weights(folder / "cut")[name], weight, err_msg=name)
    else:
        np.testing.assert_allclose(cut, whole, atol=CLOSE)


def two_cards_train_as_one(run: Run, arguments: Arguments, folder: Path) -> None:
    for name, many in (("one", {"parallel": "none"}), ("two", {"ranks": 2, "parallel": "ddp"})):
        record(run(*arguments(folder / name, **SETTINGS, **many), "--json"))
    np.testing.assert_allclose(losses(folder / "two"), losses(folder / "one"), atol=CLOSE)


def other_commands_use_the_card(run: Run, arguments: Arguments, folder: Path) -> None:
    """A dry run and find-lr."""
    plan = run(*arguments(folder / "run"), "--dry-run", "--json")
    assert plan.returncode == 0 and json.loads(plan.stdout)["precision"] == "fp16", plan.stderr
    assert not (folder / "run").exists()
    found = run("find-lr", *arguments(folder / "run")[1:], "--steps", "10", "--json")
    assert found.returncode == 0 and json.loads(found.stdout)["learning_rate"] > 0, found.stderr


def bench_train_measures_the_card(run: Run) -> None:
    options = ("--sizes", "nano", "--seconds", "0.1", "--seq-len", "64", "--no-variants", "--minutes", "2")
    measured = run("bench", "train", *options, "--json")
    assert measured.returncode == 0, measured.stderr
    results = json.loads(measured.stdout)["results"]
    assert {r["status"] for r in results} == {"ok"} and {r["case"]["device"] for r in results} == {"cuda"}
    assert {r["precision"] for r in results} <= {"fp16", "bf16"} and all(r["peak_bytes"] for r in results)
