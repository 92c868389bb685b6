"""The fastest setting that fits: micro-batch, recomputation and loss, by calculation, with its reasons.

What was asked for is kept; only what was left to `auto` is searched, and never what a run computes: the
tokens of a step, the sequence length and the model stay. Where nothing fits, `does_not_fit` names what would.
No torch here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ptbr_slm.config import SIZES, ModelConfig, model_config
from ptbr_slm.errors import SlmError
from ptbr_slm.loss_chunks import chunk_rows
from ptbr_slm.text import number, told_apart
from ptbr_slm.train.planning.memory import GIB, MemoryEstimate, estimate, gib
from ptbr_slm.train.planning.parameters import Adapters
from ptbr_slm.train.planning.speed import DeviceSpeed, micro_batch_seconds, step_seconds

LOSSES = ("chunked", "plain")
"""Ways to compute the loss (`ptbr_slm.loss`)."""
POLICIES = (0, 4, 3, 2, 1)
"""`checkpoint_every` to try: nothing recomputed, each fourth layer, ..., all of them."""
GPU_SHARE, CPU_SHARE = 0.95, 0.8
"""Of the memory, to plan with: the rest is fragmentation; on a CPU also Python, libraries and the system."""
CLOSE = 0.02
"""Settings this close to the fastest count as equal, and the one that needs least memory is taken: the
calculation of time is no better than that, and memory to spare survives fragmentation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What a step has to fit."""

    kind: str
    """`cuda` or `cpu`."""
    memory_bytes: int | None
    """Of one device; None where unknown, and then everything fits."""
    device: DeviceSpeed
    ranks: int = 1
    """Devices that share a step."""

    @property
    def budget(self) -> float:
        """Bytes to plan with."""
        if self.memory_bytes is None:
            return float("inf")
        return self.memory_bytes * (GPU_SHARE if self.kind == "cuda" else CPU_SHARE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is fixed, and what is left open (None)."""

    model: ModelConfig
    sequences: int
    """Of one optimizer step, over all ranks."""
    seq_len: int
    precision: str
    optimizer: str = "adamw"
    parallel: str = "ddp"
    batch_size: int | None = None
    checkpoint_every: int | None = None
    loss: str | None = None
    document_mask: bool = False
    adapters: Adapters | None = None
    """What is trained where the weights are frozen."""

    @property
    def open(self) -> bool:
        """Whether there is anything to choose."""
        return None in (self.batch_size, self.checkpoint_every, self.loss)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One way to compute the step, with what it would take."""

    batch_size: int
    """Sequences of a micro-batch."""
    checkpoint_every: int
    loss: str
    memory: MemoryEstimate
    seconds: float
    """Of a step, computed."""
    tokens_per_second: float
    """Of all devices together, computed."""


def choose(request: Request, machine: Machine) -> Setting | None:
    """The fastest setting that fits; of those `CLOSE` to it the one that recomputes and takes least.

    None where none fits.
    """
    fitting = [s for s in settings(request, machine) if s.memory.total <= machine.budget]
    if not fitting:
        return None
    limit = (1 + CLOSE) * min(setting.seconds for setting in fitting)
    close = [s for s in fitting if s.seconds <= limit]
    return min(close, key=lambda s: (recomputed_share(s.checkpoint_every), s.memory.total, s.seconds))


def options(request: Request, machine: Machine) -> list[Setting]:
    """For each recomputation and loss the setting that would be taken, or the smallest where none fits."""
    found = []
    for every in POLICIES:
        for loss in LOSSES:
            part = replace(request, checkpoint_every=every, loss=loss)
            smallest = min(settings(part, machine), key=lambda setting: setting.memory.total)
            found.append(choose(part, machine) or smallest)
    return found


def settings(request: Request, machine: Machine) -> Iterator[Setting]:
    """Every setting that the request leaves open."""
    share = -(-request.sequences // machine.ranks)
    candidates = [request.batch_size] if request.batch_size else _divisors(request.sequences, share)
    policies = POLICIES if request.checkpoint_every is None else (request.checkpoint_every,)
    losses = tuple(LOSSES) if request.loss is None else (request.loss,)
    for batch_size in candidates:
        for every in policies:
            for loss in losses:
                yield setting(request, machine, batch_size, every, loss)


def setting(request: Request, machine: Machine, batch_size: int, every: int, loss: str) -> Setting:
    """What this way of computing the step takes. Micro-batches larger than a rank's share do not fill up."""
    in_use = min(batch_size, -(-request.sequences // machine.ranks))
    memory = estimate(
        request.model,
        batch_size=in_use,
        seq_len=request.seq_len,
        checkpoint_every=every,
        precision=request.precision,
        optimizer=request.optimizer,
        device=machine.kind,
        ranks=machine.ranks,
        parallel=request.parallel,
        loss=loss,
        document_mask=request.document_mask,
        adapters=request.adapters,
    )
    micro = micro_batch_seconds(
        request.model,
        machine.device,
        tokens=in_use * request.seq_len,
        seq_len=request.seq_len,
        checkpoint_every=every,
        precision=request.precision,
        loss=loss,
        loss_chunks=_chunks(request, machine, in_use) if loss == "chunked" else 1,
        adapters=request.adapters,
    )
    seconds = step_seconds(
        request.model,
        micro,
        sequences=request.sequences,
        batch_size=in_use,
        ranks=machine.ranks,
        parallel=request.parallel,
        adapters=request.adapters,
    )
    return Setting(
        batch_size=batch_size,
        checkpoint_every=every,
        loss=loss,
        memory=memory,
        seconds=seconds,
        tokens_per_second=request.sequences * request.seq_len / seconds,
    )


def _chunks(request: Request, machine: Machine, batch_size: int) -> int:
    tokens = batch_size * request.seq_len
    return -(-tokens // chunk_rows(tokens, request.model.vocab_size, machine.kind))


def alternatives(
    request: Request, machine: Machine, size: str | None, *, most: int = 3
) -> list[tuple[str, Setting]]:
    """Up to `most` (piece of command line, setting) that fit by the estimate, the least change first.

    First what does not change the results, then sharding or 8-bit moments, then a shorter sequence with as
    many tokens a step, then the largest smaller size.
    """
    free = replace(request, batch_size=None, checkpoint_every=None, loss=None)
    found: list[tuple[str, Setting]] = []
    for flags, changed in [("", free), *_changes(free, machine, size)]:
        best = choose(changed, machine)
        if best is not None and len(found) < most:
            found.append((_command_line(flags, changed, best, request), best))
    return found


def does_not_fit(request: Request, machine: Machine, size: str | None, least: Setting) -> SlmError:
    """E_MEMORY with the choices that would fit."""
    ways = alternatives(request, machine, size)
    device = "a GPU tem" if machine.kind == "cuda" else "esta máquina tem"
    lines = [f"{flags}   ({gib(way.memory.total)} GiB, calculado)" for flags, way in ways]
    hint = (
        "Cabe com:  " + "\n        ou:  ".join(lines) if lines else "Nem o menor modelo cabe nesta memória."
    )
    needed, budget = told_apart(least.memory.total / GIB, machine.budget / GIB, 1)
    return SlmError(
        "E_MEMORY",
        f"este treino precisa de {needed} GiB (calculado); "
        f"{device} {gib(machine.memory_bytes or 0)} GiB, e planejamos com {budget}.",
        where=f"--seq-len {request.seq_len}, {number(request.sequences * request.seq_len)} tokens por passo",
        hint=hint,
    )


def _changes(free: Request, machine: Machine, size: str | None) -> Iterator[tuple[str, Request]]:
    if machine.ranks > 1 and free.parallel == "ddp" and free.optimizer == "adamw" and free.adapters is None:
        yield "--parallel fsdp", replace(free, parallel="fsdp")
    if machine.kind == "cuda" and free.optimizer == "adamw" and free.adapters is None:
        yield "--optimizer adamw8bit", replace(free, optimizer="adamw8bit")
    tokens, length = free.sequences * free.seq_len, free.seq_len // 2
    while length >= 64:
        if tokens % length == 0:
            shorter = replace(free, seq_len=length, sequences=tokens // length)
            if choose(shorter, machine) is not None:
                yield f"--seq-len {length}", shorter
                break
        length //= 2
    if size is not None:
        smaller = sorted(SIZES, key=lambda name: -SIZES[name].num_parameters)
        for name in smaller[smaller.index(size) + 1 :]:
            model = model_config(name, vocab_size=free.model.vocab_size, max_seq_len=free.model.max_seq_len)
            changed = replace(free, model=model)
            if choose(changed, machine) is not None:
                yield f"--model-size {name}", changed
                break


def _command_line(flags: str, changed: Request, best: Setting, asked: Request) -> str:
    """The flags that differ from what was asked, ready to type."""
    words = [flags] if flags else []
    words.append(f"--batch-size {best.batch_size} --grad-accum {changed.sequences // best.batch_size}")
    if best.checkpoint_every != asked.checkpoint_every:
        words.append(f"--checkpointing {policy_name(best.checkpoint_every)}")
    if asked.loss is not None and best.loss != asked.loss:
        words.append(f"--set loss={best.loss}")
    return " ".join(words)


def policy_name(every: int) -> str:
    """`checkpoint_every` as `--checkpointing` takes it."""
    return {0: "none", 1: "full"}.get(every, f"every:{every}")


def recomputed_share(every: int) -> float:
    """Share of the layers that are computed twice."""
    return 1 / every if every else 0.0


def _divisors(count: int, most: int) -> list[int]:
    """Divisors of `count` up to `most`: the micro-batches that share a step out evenly."""
    return [n for n in range(1, min(count, most) + 1) if count % n == 0]


def checkpointing_reason(request: Request, machine: Machine, chosen: Setting) -> str:
    """Why activations are recomputed or kept, in a sentence of Portuguese with the figures that decided."""
    every = chosen.checkpoint_every
    if machine.memory_bytes is None:
        share = f"{_fine_gib(chosen.memory.total)} GiB, calculado"
    else:
        share = f"{_fine_gib(chosen.memory.total)} de {_fine_gib(machine.memory_bytes)} GiB, calculado"
    if request.checkpoint_every is not None:
        return f"pedida na configuração ({share})"
    if every == 0:
        return f"cabe sem recalcular nada ({share})"
    without = setting(request, machine, chosen.batch_size, 0, chosen.loss).memory.total
    what = "todas as camadas" if every == 1 else f"uma camada a cada {every}"
    return f"só cabe recalculando {what} ({share}; sem recalcular pediria {_fine_gib(without)})"


def batch_size_reason(request: Request, machine: Machine, chosen: Setting) -> str:
    """Why this micro-batch, compared with the next larger one; empty where it was asked for."""
    if request.batch_size is not None:
        return ""
    text = f"micro-lote de {chosen.batch_size} x {number(request.seq_len)} tokens"
    larger = next(iter(sorted(_larger(request, machine, chosen), key=lambda s: s.batch_size)), None)
    if larger is None:
        return f"{text}: é a parte inteira de cada dispositivo"
    if larger.memory.total > machine.budget:
        return (
            f"{text}, o maior que cabe (com {larger.batch_size} pediria {_fine_gib(larger.memory.total)} GiB)"
        )
    return f"{text}: com {larger.batch_size} {_compared(larger, chosen)} (calculado)"


def loss_reason(request: Request, machine: Machine, chosen: Setting) -> str:
    """Why the loss is computed so; empty where it was asked for."""
    if request.loss is not None:
        return ""
    other = "plain" if chosen.loss == "chunked" else "chunked"
    alternative = setting(request, machine, chosen.batch_size, chosen.checkpoint_every, other)
    what = "em pedaços (chunked)" if chosen.loss == "chunked" else "inteira (plain)"
    return f"perda {what}: com {other} {_compared(alternative, chosen)} (calculado)"


def _larger(request: Request, machine: Machine, chosen: Setting) -> Iterator[Setting]:
    for other in settings(request, machine):
        same = (other.checkpoint_every, other.loss) == (chosen.checkpoint_every, chosen.loss)
        if same and other.batch_size > chosen.batch_size:
            yield other


def _compared(other: Setting, chosen: Setting) -> str:
    """What the step would be with the other setting: only what a reader sees differ.

    Memory is told where the figures differ as they are shown, time from `CLOSE` on, below which the
    calculation tells nothing.
    """
    told = []
    needed, now = _fine_gib(other.memory.total), _fine_gib(chosen.memory.total)
    if needed != now:
        told.append(f"pediria {needed} GiB em vez de {now}")
    slower = other.seconds / chosen.seconds - 1
    if abs(slower) >= CLOSE:
        told.append(f"seria {number(100 * abs(slower), 1)} % mais {'lento' if slower > 0 else 'rápido'}")
    return f"o passo {' e '.join(told)}" if told else "daria no mesmo"


def _fine_gib(size: float) -> str:
    """One decimal; two below 1 GiB, where small models would all look the same."""
    return number(size / GIB, 1 if size >= GIB else 2)
