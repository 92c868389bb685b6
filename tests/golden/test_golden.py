"""Training and generation give what values.json records (see record.py for what the values mean).

On a machine with the recorded `environment` every value is the same bit for bit. Elsewhere kernels add in
another order, and the values agree within TOLERANCES; texts are the same up to a near tie.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from near_ties import FP32, assert_same_tokens

import ptbr_slm

sys.path.insert(0, str(Path(__file__).parent))
import record

GOLDEN = json.loads(record.VALUES.read_bytes())
EXACT = record.environment() == GOLDEN["environment"]

TOLERANCES = {
    "losses": 1e-4,
    "smoothed": 1e-4,
    "bits_per_byte": 1e-4,
    "grad_norms": 5e-3,
    "weights_norm": 1e-5,
    "learning_rates": 1e-12,
    "rates": 1e-12,
}
"""Largest relative difference on another machine, about ten times what was seen against AVX-512 with
ATEN_CPU_CAPABILITY=avx2 and =default: losses 4.7e-6 (that of qk_norm), bits per byte 1.4e-6, gradient norms
4.4e-4, norm of the weights 1.2e-7. Two threads change no value of the training. The schedule is Python's."""

LOGITS = {"torch": FP32, "fp32": FP32, "int8": 0.1, "int4": 0.1}
"""Largest difference of a logit on another machine. Seen with AVX2 (qemu's EPYC-Rome) and AVX-512: 4.3e-6 in
fp32, 0.038 in int8, 0.028 in int4, where a last bit decides how an activation is rounded to 8 bits."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs and exports, played in a process of their own; values.json lies among them."""
    folder = tmp_path_factory.mktemp("golden")
    command = [sys.executable, record.__file__, "-o", folder / "values.json", "--work", folder]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # what this process imports
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def found(work: Path) -> dict[str, Any]:
    return json.loads((work / "values.json").read_bytes())


def assert_numbers(name: str, now: dict[str, Any], then: dict[str, Any]) -> None:
    """The same series of numbers. name: its key in TOLERANCES."""
    if EXACT:
        assert now == then, name
        return
    ours, recorded = ([float.fromhex(number) for number in side["hex"]] for side in (now, then))
    assert ours == pytest.approx(recorded, rel=TOLERANCES[name], abs=0.0), name


@pytest.mark.parametrize("run", GOLDEN["training"])
def test_a_run_learns_what_it_did(found, run):
    now, then = found["training"][run], GOLDEN["training"][run]
    assert now.keys() == then.keys()
    for name in ("losses", "grad_norms", "learning_rates", "bits_per_byte", "weights_norm"):
        assert_numbers(name, now[name], then[name])
    assert (now["steps"], now["evaluated"]) == (then["steps"], then["evaluated"])
    if EXACT:
        assert now["weights_sha256"] == then["weights_sha256"]
        assert now.get("samples") == then.get("samples")


def test_a_run_resumed_from_its_middle_is_the_run_that_was_not_stopped(found):
    whole, rest = found["training"]["adamw"], found["training"]["resumed"]
    assert rest["steps"] == [4, 5, 6, 7, 8]
    assert rest["losses"]["hex"] == whole["losses"]["hex"][3:]
    assert rest["weights_sha256"] == whole["weights_sha256"]


def test_the_range_test_draws_the_curve_it_drew(found):
    now, then = found["find_lr"], GOLDEN["find_lr"]
    for name in ("rates", "losses", "smoothed"):
        assert_numbers(name, now[name], then[name])
    assert (now["suggestion"], now["diverged"]) == (then["suggestion"], then["diverged"])


@pytest.mark.parametrize("engine", GOLDEN["generation"])
def test_a_model_says_what_it_said(found, work, engine):
    now, then = found["generation"][engine], GOLDEN["generation"][engine]
    if EXACT:
        assert now == then
        return
    within = LOGITS[engine]
    for name in ("maximum", "logprobs"):
        ours, recorded = ([float.fromhex(number) for number in side[name]["hex"]] for side in (now, then))
        assert ours == pytest.approx(recorded, rel=0.0, abs=2 * within)
    model = ptbr_slm.load(record.MODEL if engine == "torch" else work / engine, device="cpu")
    ids = model.engine.tokenizer.encode(record.READ)
    for position, pair in enumerate(zip(now["argmax"], then["argmax"], strict=True)):
        if len(set(pair)) > 1:
            logits = model.logits(ids[: position + 1])[-1]
            assert math.isclose(logits[pair[0]], logits[pair[1]], rel_tol=0.0, abs_tol=2 * within)
    for name, (prompts, options) in record.TEXTS.items():
        of_each, chosen = options.get("n", 1), {k: v for k, v in options.items() if k != "seed"}
        for number, (ours, recorded) in enumerate(zip(now[name], then[name], strict=True)):
            prompt = model.engine.tokenizer.encode(prompts[number // of_each])
            seed = options.get("seed", 0) + number % of_each
            assert_same_tokens(model, prompt, ours["tokens"], recorded["tokens"], seed, within, **chosen)
    model.close()
