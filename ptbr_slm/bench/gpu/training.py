"""Sections `memory` and `speed`: real training steps on one card, beside what the planner calculates.

`memory`: the peak of steps in eight settings. `speed`: tokens/s and MFU of four sizes.
"""

from __future__ import annotations

import gc
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptbr_slm.bench.gpu.results import Answer, SectionRequest, explain
from ptbr_slm.bench.train import Case, Result, run_case
from ptbr_slm.faults import maybe_fail

MEMORY_TOLERANCE = 0.10
"""Of the calculated over the measured peak, minus 1, either variant: what the tests hold the planner to."""
STEPS, ACCUM = 2, 2
"""The peak comes in the second micro-batch of the second step, when gradients and moments are there."""
SETTING_S = 4.0
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


def measure_memory(request: SectionRequest, answer: Answer) -> None:
    """A line a setting, and the worst error."""
    import torch

    from ptbr_slm.bench.synthetic import random_data
    from ptbr_slm.config import DEFAULT_VOCAB_SIZE

    errors: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        random_data(Path(scratch) / "data", DEFAULT_VOCAB_SIZE)
        if request.device == "cuda":
            torch.ones(64, 64, device="cuda").mm(torch.ones(64, 64, device="cuda"))  # cuBLAS's workspace
        for setting in SMOKE if request.smoke else SETTINGS:
            if request.left_s < SETTING_S:
                answer.missing(setting.name, "skipped", "não coube no tempo da seção")
                continue
            try:
                figures = _peak(setting, request, Path(scratch))
            except Exception as error:
                answer.missing(setting.name, *explain(error))
            else:
                _add_peak(answer, setting, figures, errors)
            gc.collect()
            if request.device == "cuda":
                torch.cuda.empty_cache()
    worst = max(errors, key=abs) if errors else None
    answer.facts["memory_worst_error"] = worst
    answer.check(
        "worst_error",
        "pior erro da memória calculada sobre a medida",
        worst,
        low=-MEMORY_TOLERANCE,
        high=MEMORY_TOLERANCE,
    )


def _add_peak(answer: Answer, setting: Setting, figures: dict[str, Any], errors: list[float]) -> None:
    if figures["peak_bytes"] is None:
        reason = "os passos rodaram, mas só o alocador de uma GPU conta a memória"
        answer.missing(setting.name, "absent", reason, **figures)
        return
    error = figures["predicted_bytes"] / figures["peak_bytes"] - 1
    errors.append(error)
    answer.line(setting.name, **figures, error=error)


def _peak(setting: Setting, request: SectionRequest, scratch: Path) -> dict[str, Any]:
    """Train two steps in this process. Raises E_MEMORY where the plan says that it does not fit."""
    import torch

    from ptbr_slm.bench import t4_rules
    from ptbr_slm.bench.train_measure import Measurement, config_of
    from ptbr_slm.data.prepared import PreparedData
    from ptbr_slm.train.parallel.world import SINGLE_PROCESS
    from ptbr_slm.train.planning.plan import make_plan
    from ptbr_slm.train.reporting.metrics import MetricsLog

    case = Case(
        size=setting.size,
        label="",
        device=request.device,
        seq_len=16 if request.smoke else 1024,
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
    run = Measurement(case, plan, data, SINGLE_PROCESS, scratch)
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


SIZES = ("85m", "160m", "400m", "800m")
SECONDS = 4.0
"""Of measured steps, about; at least two of each kind are made."""
SIZE_S = 15.0
"""Seconds that a size must have left."""
LEAST_MFU, MOST_MFU = 0.1, 1.0
"""Of the GEMM measured beside it. More is a fault of the measurement; less, the card is waiting for the host
or runs other kernels than we think (training reaches 55 to 75 % of a T4's GEMM, assumed)."""
_STATUS = {"ok", "oom", "error", "time", "skipped"}


def measure_speed(request: SectionRequest, answer: Answer) -> None:
    """A line a size. `facts`: speed_85m, for the section that has two cards."""
    sizes = ("nano",) if request.smoke else SIZES
    results = []
    for size in sizes:
        if request.left_s < (2 if request.smoke else SIZE_S):
            answer.missing(size, "skipped", "não coube no tempo da seção")
            continue
        result = run_case(case_of(size, request), request.left_s - 1)
        results.append(result)
        add_result(answer, size, result)
    shares = [r.mfu_gemm for r in results if r.mfu_gemm is not None]
    least = 0.0 if request.smoke else LEAST_MFU
    for name, label, value in (
        ("mfu_least", "menor MFU sobre o produto medido", min(shares, default=None)),
        ("mfu_most", "maior MFU sobre o produto medido", max(shares, default=None)),
    ):
        answer.check(name, label, value, low=least, high=MOST_MFU)
    errors = [r.memory_error for r in results if r.memory_error is not None and request.device == "cuda"]
    worst = max(errors, key=abs) if errors else None
    answer.check(
        "worst_error",
        "pior erro da memória calculada sobre a medida",
        worst,
        low=-MEMORY_TOLERANCE,
        high=MEMORY_TOLERANCE,
    )
    first = next((r for r in results if r.case.size == sizes[0] and r.tokens_per_second), None)
    answer.facts["speed_one_card"] = None if first is None else first.tokens_per_second


def case_of(size: str, request: SectionRequest, ranks: int = 1) -> Case:
    """A size as the planner would train it on so many cards."""
    return Case(
        size=size,
        label="plano",
        device=request.device,
        seq_len=16 if request.smoke else 1024,
        seconds=0.2 if request.smoke else SECONDS,
        ranks=ranks,
        batch_size=2 if request.smoke else 0,
        t4_rules=True,
    )


def add_result(answer: Answer, name: str, result: Result) -> None:
    """A result as a line."""
    planned = {
        "batch_size": result.batch_size,
        "checkpointing": result.checkpointing,
        "loss": result.loss,
        "precision": result.precision,
        "predicted_bytes": result.predicted_bytes,
        "predicted_tokens_per_second": result.predicted_tokens_per_second,
    }
    if result.status != "ok":
        status = result.status if result.status in _STATUS else "error"
        answer.missing(name, status, result.reason, **planned)
        return
    answer.line(
        name,
        **planned,
        tokens_per_second=result.tokens_per_second,
        mfu=result.mfu,
        mfu_gemm=result.mfu_gemm,
        gemm_flops=result.gemm_flops,
        micro_batch_s=result.micro_batch_s,
        update_s=result.update_s,
        grad_accum=result.grad_accum,
        peak_bytes=result.peak_bytes,
        reserved_bytes=result.reserved_bytes,
        memory_error=result.memory_error,
        skipped_steps=result.skipped_steps,
    )
