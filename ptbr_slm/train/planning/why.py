"""Why the planner chose as it did, in a sentence each, with the figures that decided. No torch here."""

from __future__ import annotations

from collections.abc import Iterator

from ptbr_slm.brazilian import number
from ptbr_slm.train.planning.choice import Machine, Request, Setting, setting, settings
from ptbr_slm.train.planning.memory import GIB


def checkpointing(request: Request, machine: Machine, chosen: Setting) -> str:
    """About recomputed activations."""
    every = chosen.checkpoint_every
    if machine.memory_bytes is None:
        share = f"{_gib(chosen.memory.total)} GiB, calculado"
    else:
        share = f"{_gib(chosen.memory.total)} de {_gib(machine.memory_bytes)} GiB, calculado"
    if request.checkpoint_every is not None:
        return f"pedida na configuração ({share})"
    if every == 0:
        return f"cabe sem recalcular nada ({share})"
    without = setting(request, machine, chosen.batch_size, 0, chosen.loss).memory.total
    what = "todas as camadas" if every == 1 else f"uma camada a cada {every}"
    return f"só cabe recalculando {what} ({share}; sem recalcular pediria {_gib(without)})"


def batch_size(request: Request, machine: Machine, chosen: Setting) -> str:
    """About the micro-batch, compared with the next larger one; empty where it was asked for."""
    if request.batch_size is not None:
        return ""
    text = f"micro-lote de {chosen.batch_size} x {number(request.seq_len)} tokens"
    larger = next(iter(sorted(_larger(request, machine, chosen), key=lambda s: s.batch_size)), None)
    if larger is None:
        return f"{text}: é a parte inteira de cada dispositivo"
    if larger.memory.total > machine.room:
        return f"{text}, o maior que cabe (com {larger.batch_size} pediria {_gib(larger.memory.total)} GiB)"
    gain = 100 * (chosen.seconds / larger.seconds - 1)
    return (
        f"{text}: com {larger.batch_size} o passo seria {number(gain, 1)} % mais rápido (calculado) e "
        f"pediria {_gib(larger.memory.total)} GiB"
    )


def loss(request: Request, machine: Machine, chosen: Setting) -> str:
    """About how the loss is computed; empty where it was asked for."""
    if request.loss is not None:
        return ""
    other = "plain" if chosen.loss == "chunked" else "chunked"
    rival = setting(request, machine, chosen.batch_size, chosen.checkpoint_every, other)
    what = "em pedaços (chunked)" if chosen.loss == "chunked" else "inteira (plain)"
    slower = 100 * (rival.seconds / chosen.seconds - 1)
    return (
        f"perda {what}: com {other} seriam {_gib(rival.memory.total)} GiB em vez de "
        f"{_gib(chosen.memory.total)}, e o passo {number(abs(slower), 1)} % mais "
        f"{'lento' if slower >= 0 else 'rápido'} (calculado)"
    )


def _larger(request: Request, machine: Machine, chosen: Setting) -> Iterator[Setting]:
    for other in settings(request, machine):
        same = (other.checkpoint_every, other.loss) == (chosen.checkpoint_every, chosen.loss)
        if same and other.batch_size > chosen.batch_size:
            yield other


def _gib(size: float) -> str:
    """One decimal; two below 1 GiB, where small models would all look alike."""
    return number(size / GIB, 1 if size >= GIB else 2)
