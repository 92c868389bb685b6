"""What `bench train` measures, in the order of what is worth knowing first. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

SEQ_LEN = {"cuda": 1024, "cpu": 256}
SIZES = {"cuda": ("85m", "400m", "800m"), "cpu": ("nano", "mini")}
"""Kind of device -> model sizes that are measured where none is named."""


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
class Wanted:
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


def cases(wanted: Wanted) -> Iterator[Case]:
    """The planner's choice for every size first, on all cards and on one; then what else could be chosen."""
    bases = []
    for size in wanted.sizes:
        base = Case(
            size=size,
            label="plano",
            device=wanted.device,
            seq_len=wanted.seq_len,
            seconds=wanted.seconds,
            ranks=wanted.cards,
            batch_size=wanted.batch_size,
        )
        bases.append(base)
        yield base
    if wanted.cards > 1:
        yield from (replace(base, label="uma GPU", ranks=1) for base in bases)
    if not wanted.variants:
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
