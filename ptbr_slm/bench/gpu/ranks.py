"""Section `ranks`: one card against two: the speed, and whether a step's loss is the same."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ptbr_slm.bench.gpu.asked import Asked
from ptbr_slm.bench.gpu.memory import TOLERANCE as MEMORY_TOLERANCE
from ptbr_slm.bench.gpu.results import Answer
from ptbr_slm.bench.gpu.speed import case_of, run_case, tell
from ptbr_slm.faults import maybe_fail

STEPS = 10
TOLERANCE = 0.01
"""Of a step's loss on two cards over that on one: the sums are the same but for their order, in fp16."""
LEAST_SPEED_UP = 1.5
"""Of two cards over one; the planner expects 1.94 (two T4s, 4 GB/s between them, assumed)."""


def measure(asked: Asked, answer: Answer) -> None:
    """Two ranks on two cards; on a CPU, in a smoke run, two gloo processes."""
    if asked.device == "cuda" and asked.cards < 2:
        reason = "há uma GPU só, e o NCCL aceita um processo por placa: são precisas duas"
        answer.missing("2 ranks", "absent", reason)
        return
    if asked.device == "cpu" and not asked.smoke:
        answer.missing("2 ranks", "absent", "não há GPU")
        return
    with answer.attempt("loss"):
        _losses(asked, answer)
    with answer.attempt("speed"):
        _speed(asked, answer)


def _losses(asked: Asked, answer: Answer) -> None:
    """Ten steps on one rank and on two, from the same weights and over the same sequences."""
    from ptbr_slm.bench.data import learnable_data
    from ptbr_slm.bench.gpu.small_run import SmallRun, train
    from ptbr_slm.train.parallel.launch import launch

    with tempfile.TemporaryDirectory() as folder:
        precision = "fp16" if asked.device == "cuda" else "fp32"
        run = SmallRun(folder=folder, device=asked.device, precision=precision, steps=STEPS)
        vocab_size = 2048
        if asked.smoke:
            run, vocab_size = replace(run, size="nano", seq_len=32, batch_size=2, steps=4), 512
        learnable_data(Path(folder) / "data", vocab_size, 1 << 16)
        # Two first: a process that has used a card may not start others that share its state.
        two = launch(train, (run,), 2)
        if maybe_fail("bench.ranks.rate"):
            run = replace(run, learning_rate=4 * run.learning_rate, grad_accum=1)
        one = train(run)
    difference = largest_difference(one.losses, two.losses)
    answer.line("loss", one_card=one.losses, two_cards=two.losses, difference=difference)
    answer.check(
        "loss", f"maior diferença relativa da perda em {len(one.losses)} passos, duas placas sobre uma",
        difference, high=TOLERANCE,
    )  # fmt: skip


def largest_difference(one: Sequence[float | None], two: Sequence[float | None]) -> float:
    """Relative, over the steps; NaN where only one of them has a loss."""
    differences = [
        abs(b - a) / abs(a) if a is not None and b is not None else math.nan
        for a, b in zip(one, two, strict=True)
        if a is not None or b is not None
    ]
    return math.nan if any(math.isnan(value) for value in differences) else max(differences, default=math.nan)


def _speed(asked: Asked, answer: Answer) -> None:
    size = "nano" if asked.smoke else "85m"
    one = asked.facts.get("speed_one_card")
    if one is None:
        single = run_case(case_of(size, asked), asked.left_s / 2)
        tell(answer, f"{size}, uma placa", single)
        one = single.tokens_per_second
    both = run_case(case_of(size, asked, ranks=2), asked.left_s - 1)
    tell(answer, f"{size}, duas placas", both)
    two = both.tokens_per_second
    gain = two / one if one and two else None
    if asked.device == "cpu":
        answer.note("No processador dois processos repartem os mesmos núcleos: o ganho não é julgado.")
        return
    answer.facts["speed_up"] = gain
    answer.check("speed_up", "tokens/s de duas placas sobre os de uma", gain, low=LEAST_SPEED_UP)
    answer.check(
        "memory", "erro da memória calculada de cada placa, com duas", both.memory_error,
        low=-MEMORY_TOLERANCE, high=MEMORY_TOLERANCE,
    )  # fmt: skip
