"""Out of memory on one of two ranks (gloo, real processes): all agree, or all start again; one result."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from ptbr_slm.train.reporting.metrics import read_metrics
from ptbr_slm.train.run import train

VALUES = {"batch_size": 4, "grad_accum": 2, "max_steps": 3, "checkpoint.every": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "restarted"),
    [
        ("step.forward:2", False),
        ("step.forward:3", False),
        ("step.backward:3", True),
        ("step.optimizer:3", True),
    ],
)
def test_one_rank_of_two_out_of_memory(settings, train_arguments, tmp_path, point, restarted):
    train(settings(VALUES))
    run = tmp_path / "two"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PTBR_SLM_FAULT": f"oom@{point}:1"}
    arguments = train_arguments(run, **VALUES, ranks=2, parallel="ddp")
    done = subprocess.run(
        [sys.executable, "-m", "ptbr_slm", *arguments, "--json"],
        env=environment, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert any(e.get("code") == "restart" for e in events) == restarted
    assert json.loads((run / "micro_batch.json").read_bytes())["batch_size"] == 2
    retries = [e for e in events if e["event"] == "out_of_memory"]
    assert [(e["before"], e["after"]) for e in retries] == ([] if restarted else [(4, 2)])
    losses = [[r["loss"] for r in read_metrics(folder / "metrics.jsonl") if r["event"] == "step"]
              for folder in (run, tmp_path / "run")]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], abs=1e-5) and len(losses[0]) == 3
    ours, theirs = (load_file(f / "final" / "model.safetensors") for f in (run, tmp_path / "run"))
    for name, weight in theirs.items():
        np.testing.assert_allclose(ours[name], weight, atol=2e-4, err_msg=name)
