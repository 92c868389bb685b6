"""`bench train`: the cases, in the order of what is worth knowing first, each in a process of its own.

A case that runs out of memory ends alone. No torch here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ptbr_slm.bench.machine import MachineFacts, machine
from ptbr_slm.bench.process import last_line, run_module
from ptbr_slm.config import model_config
from ptbr_slm.errors import SlmError
from ptbr_slm.gpus import find_gpus

SEQ_LEN = {"cuda": 1024, "cpu": 256}
SIZES = {"cuda": ("85m", "400m", "800m"), "cpu": ("nano", "mini")}
"""Kind of device -> model sizes that are measured where none is named."""
DEVICES = ("auto", "cpu", "cuda")
START_S = 90.0
"""Seconds that a process may take before its first step, and the end of a step that is under variant."""
COMPILE_S = 180.0
"""What torch.compile may take on top: 42 s for a tiny layer on one core (`train.compile`)."""
PATIENCE = 6.0
"""A case may take so many times its measuring time before it is given up: a first step compiles kernels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One setting, measured in a process of its own."""

    size: str
    label: str
    """What sets it apart, in Portuguese."""
    device: str
    """`cuda` or `cpu`."""
    seq_len: int
    seconds: float
    """Of measured steps, about."""
    ranks: int = 1
    """Devices that share the step."""
    batch_size: int = 0
    """Sequences of a micro-batch; 0: the planner's choice."""
    checkpointing: str = "auto"
    loss: str = "auto"
    optimizer: str = "adamw"
    compile: bool = False
    parallel: str = "auto"
    t4_rules: bool = False
    """Whether a larger card is kept to what a T4 can (`bench.t4_rules`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What came of a case. Figures that could not be had are None, never 0."""

    case: Case
    status: str
    """`ok`, `oom`, `error`, `time` (it took too long) or `skipped`."""
    reason: str = ""
    """Why there are no figures, in Portuguese."""
    batch_size: int | None = None
    """Sequences of the micro-batch that was measured."""
    grad_accum: int | None = None
    """Micro-batches of the optimizer step that tokens_per_second is for."""
    checkpointing: str | None = None
    loss: str | None = None
    precision: str | None = None
    parameters: int | None = None
    micro_batch_s: float | None = None
    """Measured: forward and backward of one micro-batch on every rank."""
    update_s: float | None = None
    """Measured: the rest of a step: exchange between ranks, clipping, optimizer."""
    tokens_per_second: float | None = None
    """Of all ranks: grad_accum micro-batches and one update put together from the two."""
    predicted_tokens_per_second: float | None = None
    """The planner's, computed."""
    mfu: float | None = None
    mfu_gemm: float | None = None
    gemm_flops: float | None = None
    predicted_bytes: int | None = None
    """The planner's peak for the main rank, without the CUDA context; computed."""
    peak_bytes: int | None = None
    """Measured: max_memory_allocated, or on a CPU resident memory above that before the model."""
    reserved_bytes: int | None = None
    """Measured: max_memory_reserved; None on a CPU."""
    skipped_steps: int | None = None
    """Steps of the measurement whose fp16 gradient overflowed."""
    first_loss: float | None = None
    steps: int | None = None

    @property
    def memory_error(self) -> float | None:
        """Predicted over measured peak, minus 1."""
        if not self.predicted_bytes or not self.peak_bytes:
            return None
        return self.predicted_bytes / self.peak_bytes - 1

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"memory_error": self.memory_error}


def result_from(body: dict[str, Any]) -> Result:
    """The result that `Result.to_json` wrote."""
    body = {key: value for key, value in body.items() if key != "memory_error"}
    return Result(**{**body, "case": Case(**body["case"])})


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOptions:
    """What to measure with."""

    device: str
    cards: int
    """Visible GPUs; 1 on a CPU."""
    sizes: Sequence[str]
    seq_len: int
    seconds: float = 8.0
    """Of measured steps in a case."""
    variants: bool = True
    """Whether to compare optimizers, checkpointing, loss and compile too."""
    batch_size: int = 0


def cases(options: TrainOptions) -> Iterator[Case]:
    """The planner's choice for every size first, on all cards and on one; then what else could be chosen."""
    bases = []
    for size in options.sizes:
        base = Case(
            size=size,
            label="plano",
            device=options.device,
            seq_len=options.seq_len,
            seconds=options.seconds,
            ranks=options.cards,
            batch_size=options.batch_size,
        )
        bases.append(base)
        yield base
    if options.cards > 1:
        yield from (replace(base, label="uma GPU", ranks=1) for base in bases)
    if not options.variants:
        return
    for base in bases:
        yield from _variants(base)
    yield from (replace(base, label="compile", compile=True) for base in bases)  # last: it takes a minute


def _variants(base: Case) -> Iterator[Case]:
    yield replace(base, label="muon", optimizer="muon")
    yield replace(base, label="adamw8bit", optimizer="adamw8bit")
    yield replace(base, label="checkpointing full", checkpointing="full")
    yield replace(base, label="checkpointing none", checkpointing="none")
    yield replace(base, label="perda plain", loss="plain")
    if base.ranks > 1:
        yield replace(base, label="fsdp", parallel="fsdp")


Progress = Callable[[int, int, Case], None]
"""(cases done, of all, the one that begins)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """All results, and what they were measured on."""

    machine: MachineFacts
    results: tuple[Result, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"machine": asdict(self.machine), "results": [result.to_json() for result in self.results]}


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
    options = TrainOptions(
        device=kind,
        cards=cards,
        sizes=names,
        seq_len=seq_len or SEQ_LEN[kind],
        seconds=seconds,
        variants=variants,
    )
    todo = list(cases(options))
    results: list[Result] = []
    for index, case in enumerate(todo):
        if _repeats(case, results):
            continue
        if progress is not None:
            progress(index, len(todo), case)
        left = 60 * minutes - (time.monotonic() - began)
        results.append(_within(case, left))
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


def _within(case: Case, left_s: float) -> Result:
    """The result of a case that has `left_s` seconds."""
    if left_s < case.seconds:
        return Result(case=case, status="skipped", reason="não coube no tempo: aumente --minutes")
    return run_case(case, START_S + PATIENCE * case.seconds + (COMPILE_S if case.compile else 0.0))


def run_case(case: Case, limit_s: float) -> Result:
    """The result of a case in a process of its own; one that dies or takes too long is a result too."""
    ended = run_module("ptbr_slm.bench.train_measure", asdict(case), limit_s)
    if ended.answer is not None:
        return result_from(ended.answer)
    if ended.code is None:
        return Result(case=case, status="time", reason=f"não terminou em {limit_s:.0f} s")
    return _died(case, ended.code, ended.errors)


def _died(case: Case, code: int, errors: str) -> Result:
    if code == -9:
        reason = "o sistema encerrou o processo (quase sempre, a memória do computador acabou)"
        return Result(case=case, status="oom", reason=reason)
    return Result(case=case, status="error", reason=f"código {code}: {last_line(errors)}")


def _repeats(case: Case, results: Sequence[Result]) -> bool:
    """Whether the plan has chosen what this variant asks for: it would only measure the same again."""
    for result in results:
        same = (result.case.size, result.case.ranks) == (case.size, case.ranks)
        if same and result.case.label == "plano" and result.status == "ok":
            return case.checkpointing == result.checkpointing or case.loss == result.loss
    return False
