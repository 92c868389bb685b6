"""`bench train`: every case in a process of its own, so that one that runs out of memory ends alone."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ptbr_slm.bench.cases import SEQ_LEN, SIZES, Case, Result, Wanted, cases, result_from
from ptbr_slm.bench.process import ask, last_words
from ptbr_slm.config import model_config
from ptbr_slm.errors import SlmError
from ptbr_slm.system import cpu_cores, find_gpus, installed_version, memory_bytes
from ptbr_slm.version import __version__

DEVICES = ("auto", "cpu", "cuda")
START_S = 90.0
"""Seconds that a process may take before its first step, and the end of a step that is under way."""
COMPILE_S = 180.0
"""What torch.compile may take on top: 42 s for a tiny layer on one core (`train.compile`)."""
PATIENCE = 6.0
"""A case may take so many times its measuring time before it is given up: a first step compiles kernels."""

Progress = Callable[[int, int, Case], None]
"""(cases done, of all, the one that begins)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """All results, and what they were measured on."""

    machine: dict[str, Any]
    results: tuple[Result, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"machine": self.machine, "results": [result.to_json() for result in self.results]}


def bench_train(
    sizes: Sequence[str] | None = None,
    *,
    minutes: float = 5.0,
    device: str = "auto",
    seq_len: int | None = None,
    seconds: float = 8.0,
    variants: bool = True,
    progress: Progress | None = None,
) -> Bench:
    """Measure training on this machine for about `minutes`; cases that no longer fit into them say so.

    sizes: names, by default those that fit the kind of device. seconds: of steps in a case. variants: compare
    optimizers, checkpointing, loss and compile as well. Raises E_MODEL_SIZE, E_PROVIDER, E_USAGE.
    """
    began = time.monotonic()
    _check(sizes, device, seq_len, seconds)
    kind, cards = _devices(device)
    names = tuple(SIZES[kind] if sizes is None else sizes)
    wanted = Wanted(
        device=kind,
        cards=cards,
        sizes=names,
        seq_len=seq_len or SEQ_LEN[kind],
        seconds=seconds,
        variants=variants,
    )
    todo = list(cases(wanted))
    results: list[Result] = []
    for index, case in enumerate(todo):
        if _repeats(case, results):
            continue
        if progress is not None:
            progress(index, len(todo), case)
        left = 60 * minutes - (time.monotonic() - began)
        results.append(_alone(case, left))
    return Bench(machine=machine(kind), results=tuple(results))


def _check(sizes: Sequence[str] | None, device: str, seq_len: int | None, seconds: float) -> None:
    """Refuse what could only be measured as something else. Raises E_MODEL_SIZE, E_PROVIDER, E_USAGE."""
    if device not in DEVICES:
        hint = f"Escolha um destes: {', '.join(DEVICES)}."
        raise SlmError("E_PROVIDER", f"não existe o dispositivo {device!r}.", where="--device", hint=hint)
    for option, value in (("--seq-len", 1 if seq_len is None else seq_len), ("--seconds", seconds)):
        if not value > 0:
            hint = f"Deixe {option} de fora, ou use um número maior."
            raise SlmError(
                "E_USAGE", f"{option} deve ser maior que zero, e não {value}.", where=option, hint=hint
            )
    if sizes is not None and not sizes:
        hint = "Por exemplo:  ptbr-slm bench train --sizes nano,mini"
        raise SlmError("E_USAGE", "--sizes não diz tamanho nenhum.", where="--sizes", hint=hint)
    for name in sizes or ():
        model_config(name)


def _devices(asked: str) -> tuple[str, int]:
    """(`cuda` or `cpu`, how many). torch is imported only where the driver lists a card."""
    if asked != "cpu" and find_gpus():
        import torch

        if torch.cuda.is_available():
            return "cuda", torch.cuda.device_count()
    if asked == "cuda":
        raise SlmError(
            "E_PROVIDER",
            "foi pedido device=cuda, mas não há GPU NVIDIA que o PyTorch possa usar.",
            where="--device cuda",
            hint="Use --device cpu, ou veja o que falta com:  ptbr-slm doctor",
        )
    return "cpu", 1


def _alone(case: Case, left_s: float) -> Result:
    """The result of a case that has `left_s` seconds; a process that dies without a word is a result too."""
    if left_s < case.seconds:
        return Result(case=case, status="skipped", reason="não coube no tempo: aumente --minutes")
    limit = START_S + PATIENCE * case.seconds + (COMPILE_S if case.compile else 0.0)
    ended = ask("ptbr_slm.bench.measure", asdict(case), limit)
    if ended.answer is not None:
        return result_from(ended.answer)
    if ended.code is None:
        return Result(case=case, status="time", reason=f"não terminou em {limit:.0f} s")
    return _died(case, ended.code, ended.errors)


def _died(case: Case, code: int, errors: str) -> Result:
    if code == -9:
        reason = "o sistema encerrou o processo (quase sempre, a memória do computador acabou)"
        return Result(case=case, status="oom", reason=reason)
    return Result(case=case, status="error", reason=f"código {code}: {last_words(errors)}")


def _repeats(case: Case, results: Sequence[Result]) -> bool:
    """Whether the plan has chosen what this variant asks for: it would only measure the same again."""
    for result in results:
        same = (result.case.size, result.case.ranks) == (case.size, case.ranks)
        if same and result.case.label == "plano" and result.status == "ok":
            return case.checkpointing == result.checkpointing or case.loss == result.loss
    return False


def machine(kind: str) -> dict[str, Any]:
    """Cards, driver and versions: what a figure is worth nothing without."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": kind,
        "gpus": [asdict(gpu) for gpu in find_gpus()],
        "cpu": _processor(),
        "cpu_cores": cpu_cores(),
        "memory_bytes": memory_bytes(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": installed_version("torch"),
        "ptbr_slm": __version__,
        "load_average": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    """The processor's name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
