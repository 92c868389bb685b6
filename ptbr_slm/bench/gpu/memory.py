"""Section `memory`: the peak of real steps in eight settings, beside what the planner calculates."""

from __future__ import annotations

import gc
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptbr_slm.bench.cases import Case
from ptbr_slm.bench.gpu.asked import Asked
from ptbr_slm.bench.gpu.results import Answer, explain
from ptbr_slm.faults import maybe_fail

TOLERANCE = 0.10
"""Of the calculated over the measured peak, minus 1, either way: what the tests hold the planner to."""
STEPS, ACCUM = 2, 2
"""The peak comes in the second micro-batch of the second step, when gradients and moments are there."""
NEED_S = 4.0
"""Seconds that a setting must have left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One way to train, with micro-batches of 1,024 tokens a sequence."""

    size: str
    batch_size: int
    checkpointing: str
    loss: str
    optimizer: str

    @property
    def name(self) -> str:
        """For the page."""
        return f"{self.size}, {self.checkpointing}, {self.loss}, {self.optimizer}"


def _settings(rows: str) -> tuple[Setting, ...]:
    words = [line.split() for line in rows.strip().splitlines()]
    return tuple(
        Setting(size=size, batch_size=int(batch), checkpointing=policy, loss=loss, optimizer=optimizer)
        for size, batch, policy, loss, optimizer in words
    )


SETTINGS = _settings("""
    85m  8 none    chunked adamw
    85m  8 full    plain   adamw
    400m 4 full    chunked adamw
    400m 4 none    chunked adamw
    800m 1 full    chunked adamw
    160m 4 every:2 chunked muon
    160m 4 none    plain   adamw
    400m 2 every:4 plain   muon
""")
"""Sizes, recomputation, losses and optimizers, the most used first; none of more than 14 GiB (calculated)."""
SMOKE = _settings("""
    nano 2 none    chunked adamw
    nano 2 full    plain   muon
""")


def measure(asked: Asked, answer: Answer) -> None:
    """A line a setting, and the worst error."""
    import torch

    from ptbr_slm.bench.data import random_data
    from ptbr_slm.config import DEFAULT_VOCAB_SIZE

    errors: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        random_data(Path(scratch) / "data", DEFAULT_VOCAB_SIZE)
        if asked.device == "cuda":
            torch.ones(64, 64, device="cuda").mm(torch.ones(64, 64, device="cuda"))  # cuBLAS's workspace
        for setting in SMOKE if asked.smoke else SETTINGS:
            if asked.left_s < NEED_S:
                answer.missing(setting.name, "skipped", "não coube no tempo da seção")
                continue
            try:
                figures = _peak(setting, asked, Path(scratch))
            except Exception as error:
                answer.missing(setting.name, *explain(error))
            else:
                _tell(answer, setting, figures, errors)
            gc.collect()
            if asked.device == "cuda":
                torch.cuda.empty_cache()
    worst = max(errors, key=abs) if errors else None
    answer.facts["memory_worst_error"] = worst
    answer.check(
        "worst_error",
        "pior erro da memória calculada sobre a medida",
        worst,
        low=-TOLERANCE,
        high=TOLERANCE,
    )


def _tell(answer: Answer, setting: Setting, figures: dict[str, Any], errors: list[float]) -> None:
    if figures["peak_bytes"] is None:
        reason = "os passos rodaram, mas só o alocador de uma GPU conta a memória"
        answer.missing(setting.name, "absent", reason, **figures)
        return
    error = figures["predicted_bytes"] / figures["peak_bytes"] - 1
    errors.append(error)
    answer.line(setting.name, **figures, error=error)


def _peak(setting: Setting, asked: Asked, scratch: Path) -> dict[str, Any]:
    """Train two steps in this process. Raises E_MEMORY where the plan says that it does not fit."""
    import torch

    from ptbr_slm.bench import t4_rules
    from ptbr_slm.bench.measure import Measurement, config_of
    from ptbr_slm.data.prepared import PreparedData
    from ptbr_slm.train.parallel.world import ALONE
    from ptbr_slm.train.planning.plan import make_plan
    from ptbr_slm.train.reporting.metrics import MetricsLog

    case = Case(
        size=setting.size,
        label="",
        device=asked.device,
        seq_len=16 if asked.smoke else 1024,
        seconds=0,
        batch_size=setting.batch_size,
        checkpointing=setting.checkpointing,
        loss=setting.loss,
        optimizer=setting.optimizer,
    )
    rules = t4_rules.apply()
    data = PreparedData.open(scratch / "data", verify=False)
    plan = make_plan(config_of(case, scratch, rules), data.load_tokenizer(), memory_limit=rules.memory_limit)
    cuda = plan.device.type == "cuda"
    before = torch.cuda.memory_allocated(plan.device) if cuda else 0
    run = Measurement(case, plan, data, ALONE, scratch)
    if cuda:  # the trainer has measured a product, with matrices that a small model's step does not fill
        torch.cuda.reset_peak_memory_stats(plan.device)
    scratch.joinpath("run").mkdir(exist_ok=True)
    wasted = torch.empty(1 << 28, device=plan.device) if maybe_fail("bench.memory.step") else None
    with MetricsLog(scratch / "run" / "metrics.jsonl", 0) as metrics:
        run.steps(metrics, ACCUM, STEPS)
    del wasted
    return {
        "batch_size": setting.batch_size,
        "seq_len": case.seq_len,
        "predicted_bytes": plan.memory.total - plan.memory.context,
        "peak_bytes": torch.cuda.max_memory_allocated(plan.device) - before if cuda else None,
        "reserved_bytes": torch.cuda.max_memory_reserved(plan.device) if cuda else None,
        "instant": plan.memory.peak,
    }
