"""Section `speed`: tokens/s and MFU of four sizes, as the planner would train them on one card."""

from __future__ import annotations

from dataclasses import asdict

from ptbr_slm.bench.cases import Case, Result, result_from
from ptbr_slm.bench.gpu.asked import Asked
from ptbr_slm.bench.gpu.memory import TOLERANCE
from ptbr_slm.bench.gpu.results import Answer
from ptbr_slm.bench.process import ask, last_words

SIZES = ("85m", "160m", "400m", "800m")
SECONDS = 4.0
"""Of measured steps, about; at least two of each kind are made."""
NEED_S = 15.0
"""Seconds that a size must have left."""
LEAST_MFU, MOST_MFU = 0.1, 1.0
"""Of the GEMM measured beside it. More is a fault of the measurement; less, the card is waiting for the host
or runs other kernels than we think (training reaches 55 to 75 % of a T4's GEMM, assumed)."""
_STATUS = {"ok", "oom", "error", "time", "skipped"}


def measure(asked: Asked, answer: Answer) -> None:
    """A line a size. `facts`: speed_85m, for the section that has two cards."""
    sizes = ("nano",) if asked.smoke else SIZES
    results = []
    for size in sizes:
        if asked.left_s < (2 if asked.smoke else NEED_S):
            answer.missing(size, "skipped", "não coube no tempo da seção")
            continue
        result = run_case(case_of(size, asked), asked.left_s - 1)
        results.append(result)
        tell(answer, size, result)
    shares = [r.mfu_gemm for r in results if r.mfu_gemm is not None]
    least = 0.0 if asked.smoke else LEAST_MFU
    for name, label, value in (
        ("mfu_least", "menor MFU sobre o produto medido", min(shares, default=None)),
        ("mfu_most", "maior MFU sobre o produto medido", max(shares, default=None)),
    ):
        answer.check(name, label, value, low=least, high=MOST_MFU)
    errors = [r.memory_error for r in results if r.memory_error is not None and asked.device == "cuda"]
    worst = max(errors, key=abs) if errors else None
    answer.check(
        "worst_error", "pior erro da memória calculada sobre a medida", worst, low=-TOLERANCE, high=TOLERANCE
    )
    first = next((r for r in results if r.case.size == sizes[0] and r.tokens_per_second), None)
    answer.facts["speed_one_card"] = None if first is None else first.tokens_per_second


def case_of(size: str, asked: Asked, ranks: int = 1) -> Case:
    """A size as the planner would train it on so many cards."""
    return Case(
        size=size,
        label="plano",
        device=asked.device,
        seq_len=16 if asked.smoke else 1024,
        seconds=0.2 if asked.smoke else SECONDS,
        ranks=ranks,
        batch_size=2 if asked.smoke else 0,
        t4_rules=True,
    )


def run_case(case: Case, limit_s: float) -> Result:
    """The result of a case in a process of its own; one that dies or takes too long is a result too."""
    ended = ask("ptbr_slm.bench.measure", asdict(case), limit_s)
    if ended.answer is not None:
        return result_from(ended.answer)
    if ended.code is None:
        return Result(case=case, status="time", reason=f"não terminou em {limit_s:.0f} s")
    if ended.code == -9:
        return Result(case=case, status="oom", reason="o sistema encerrou o processo: faltou memória")
    return Result(case=case, status="error", reason=f"código {ended.code}: {last_words(ended.errors)}")


def tell(answer: Answer, name: str, result: Result) -> None:
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
