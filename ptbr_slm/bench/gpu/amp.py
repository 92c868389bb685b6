"""Section `amp`: the same small training in fp16 with GradScaler and in fp32, step beside step."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ptbr_slm.bench.gpu.asked import Asked
from ptbr_slm.bench.gpu.results import Answer
from ptbr_slm.faults import maybe_fail

if TYPE_CHECKING:
    from ptbr_slm.bench.gpu.small_run import Course

SMOOTHING = 0.9
"""Of the mean that runs along the losses: the two runs' noise is the same, their data being the same."""
TOLERANCE = 0.005
"""Of the smoothed loss. The fp32 run leaves out the steps that the scaler skipped: otherwise it would be
ahead by that many where the loss falls fast (3 % for two steps of this run)."""
MOST_SKIPPED = 6
"""Steps: from 65,536 down to 1,024. More means that gradients go on overflowing."""
LEAST_LEARNED = 0.15
"""Share by which the loss must fall: two runs that learn nothing agree, and prove nothing."""
SHOWN = 10
"""Steps between the lines of the page."""


def measure(asked: Asked, answer: Answer) -> None:
    """Losses side by side, skipped steps, the scale, and the largest difference."""
    from ptbr_slm.bench.data import learnable_data
    from ptbr_slm.bench.gpu.small_run import SmallRun, train

    with tempfile.TemporaryDirectory() as folder:
        run, vocab_size = SmallRun(folder=folder, device=asked.device, precision="fp32"), 2048
        if asked.smoke:
            run = replace(run, size="nano", seq_len=32, batch_size=4, grad_accum=1, steps=30)
            run, vocab_size = replace(run, learning_rate=4e-3), 512
        learnable_data(Path(folder) / "data", vocab_size, 1 << 18)
        rate = run.learning_rate / (4 if maybe_fail("bench.amp.rate") else 1)
        half = train(replace(run, precision="fp16", learning_rate=rate))
        compare(train(replace(run, leave_out=half.skipped)), half, answer)


def compare(exact: Course, half: Course, answer: Answer) -> None:
    """Lines and checks of the two courses."""
    both = [
        right if loss is not None else None for right, loss in zip(exact.losses, half.losses, strict=True)
    ]
    smooth, smooth_half = smoothed(both), smoothed(half.losses)
    differences = relative(smooth_half, smooth)
    for step in [1, *range(SHOWN, len(exact.losses) + 1, SHOWN)]:
        at = step - 1
        answer.line(
            f"step {step}",
            step=step,
            fp32=exact.losses[at],
            fp16=half.losses[at],
            smoothed_fp32=smooth[at],
            smoothed_fp16=smooth_half[at],
            difference=differences[at],
            scale=half.scales[at],
        )
    learned = 1 - smooth[-1] / smooth[0] if smooth and smooth[0] else math.nan
    answer.facts["amp"] = {
        "steps": len(half.losses),
        "skipped_steps": list(half.skipped),
        "final_scale": half.scales[-1] if half.scales else None,
        "largest_difference": max(differences, default=None),
        "losses_fp32": exact.losses,
        "losses_fp16": half.losses,
    }
    answer.check(
        "learned", "queda da perda em fp32 (sem ela a comparação não diria nada)", learned, low=LEAST_LEARNED
    )
    answer.check(
        "difference",
        "maior diferença relativa da perda suavizada, fp16 sobre fp32",
        max(differences, default=math.nan),
        high=TOLERANCE,
    )
    answer.check("skipped", "passos que o GradScaler pulou", float(len(half.skipped)), high=MOST_SKIPPED)
    broken = sum(loss is None for loss, took in zip(half.losses, half.applied, strict=True) if took)
    answer.check("finite", "passos aplicados com perda que não é um número", float(broken), high=0)


def smoothed(losses: Sequence[float | None]) -> list[float]:
    """A mean that runs along the losses and forgets; where a loss is no number the mean stays."""
    values: list[float] = []
    mean = math.nan
    for loss in losses:
        if loss is not None and math.isfinite(loss):
            mean = loss if math.isnan(mean) else SMOOTHING * mean + (1 - SMOOTHING) * loss
        values.append(mean)
    return values


def relative(values: Sequence[float], exact: Sequence[float]) -> list[float]:
    """|value - exact| / exact, one by one."""
    return [abs(value - right) / abs(right) for value, right in zip(values, exact, strict=True)]
