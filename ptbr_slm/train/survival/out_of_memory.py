"""The memory ran out in the middle of a run: the same step again, in smaller micro-batches.

The micro-batch in use is halved; what the run computes stays, since `train.step` sums the same sequences. It
is kept in RUN/micro_batch.json, so that a process that had to be started again does not run out again. What
is decided here is done by `train.trainer`.
"""

from __future__ import annotations

import gc
import json
from dataclasses import dataclass, replace

import torch
from torch import nn

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.bits import HeldOut
from ptbr_slm.storage.atomic import write_json
from ptbr_slm.text import number
from ptbr_slm.train.evaluate import bits_per_byte
from ptbr_slm.train.events import MemoryRanOut
from ptbr_slm.train.parallel.parallelize import Parallel
from ptbr_slm.train.parallel.world import Ranks
from ptbr_slm.train.planning.choice import alternatives, setting
from ptbr_slm.train.planning.memory import GIB
from ptbr_slm.train.planning.plan import Plan
from ptbr_slm.train.run_folder import MICRO_BATCH
from ptbr_slm.train.step import OutOfMemoryAmongOthers, is_out_of_memory


def free(device: torch.device) -> None:
    """Give back what the failed step left; nothing may refer to its tensors any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def random_states(device: torch.device) -> list[torch.Tensor]:
    """PyTorch's random states that a step could draw from."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def restore_random(states: list[torch.Tensor], device: torch.device) -> None:
    """Put back what `random_states` gave."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)


def weight_versions(model: nn.Module) -> list[int]:
    """A number for each parameter that grows whenever it is written to."""
    return [parameter._version for parameter in model.parameters()]


def same_scaler(scaler: torch.amp.GradScaler, device: torch.device) -> torch.amp.GradScaler:
    """A scaler in the same state that is not in the middle of a step."""
    fresh = torch.amp.GradScaler(device.type)
    fresh.load_state_dict(scaler.state_dict())
    return fresh


def remember(plan: Plan, batch_size: int) -> None:
    """Store the micro-batch to use from now on; 0: not even one sequence was possible."""
    body = {"batch_size": batch_size, "asked": plan.config.batch_size, "device": _device_name(plan)}
    write_json(plan.config.output / MICRO_BATCH, body)


def forget(plan: Plan) -> None:
    """Let the next session begin with what was asked for."""
    (plan.config.output / MICRO_BATCH).unlink(missing_ok=True)


def remembered(plan: Plan) -> int:
    """The micro-batch to begin with: what was written down for this batch_size and device, or batch_size.

    Raises E_MEMORY where not even one sequence was possible; that is forgotten then, and tried again next
    time.
    """
    asked, file = plan.config.batch_size, plan.config.output / MICRO_BATCH
    try:
        body = json.loads(file.read_bytes())
        same = (body["asked"], body["device"]) == (asked, _device_name(plan))
        batch_size = int(body["batch_size"]) if same else asked
    except (OSError, ValueError, KeyError, TypeError):
        return asked
    if batch_size == 0:
        forget(plan)
        raise no_smaller(plan, "na tentativa anterior")
    return min(batch_size, asked)


@dataclass(frozen=True, slots=True)
class Smaller:
    """What to do after an out of memory: one of the two."""

    batch_size: int = 0
    """Go on with micro-batches of so many sequences."""
    error: Exception | None = None
    """Or raise this."""


def smaller(plan: Plan, batch_size: int, reported: str, *, rejoined: bool, world: int) -> Smaller:
    """After the memory ran out with micro-batches of `batch_size`: half of it, where that can go on here.

    rejoined: whether this process, and all others, can do the step again. reported: the device's message.
    """
    if not rejoined:
        error = half_updated(plan, reported) if world == 1 else OutOfMemoryAmongOthers(reported)
        return Smaller(batch_size // 2, error)
    if batch_size == 1:
        return Smaller(1, no_smaller(plan, reported))
    return Smaller(batch_size // 2)


def evaluate(plan: Plan, model: Parallel, text: HeldOut, batch_size: int, ranks: Ranks) -> float:
    """Bits per byte on the held-out part, in smaller batches where the memory runs out. All ranks call it.

    Raises E_MEMORY where not even one sequence fits, OutOfMemoryAmongOthers among several ranks.
    """
    while True:
        try:
            return bits_per_byte(model, text, batch_size, plan.precision, ranks)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reported = str(error)
        free(plan.device)
        batch_size //= 2
        if batch_size == 0:
            raise no_smaller(plan, reported)
        if ranks.world > 1:  # the others wait for this rank's share
            remember(plan, batch_size)
            raise OutOfMemoryAmongOthers(reported)


def retried(step: int, before: int, after: int, reported: str) -> MemoryRanOut:
    """The event of a step, from 1, that is done again."""
    message = (
        f"A memória acabou no passo {step}: micro-lote de {before} para {after}, "
        "e o mesmo passo de novo. O resultado não muda."
    )
    first = reported.splitlines()[0][:200] if reported else ""
    return MemoryRanOut(step=step, before=before, after=after, reported=first, message=message)


def no_smaller(plan: Plan, reported: str, batch_size: int = 1) -> SlmError:
    """E_MEMORY for what does not fit in micro-batches of `batch_size`, with what needs less."""
    asked = replace(
        plan.request, batch_size=batch_size, checkpoint_every=plan.checkpoint_every, loss=plan.loss
    )
    least = setting(asked, plan.machine, batch_size, plan.checkpoint_every, plan.loss).memory.total
    machine, known = plan.machine, plan.machine.memory_bytes
    if known is None or machine.budget >= least:  # the calculation took it to fit, and was wrong
        share = machine.budget / known if known else 1.0
        machine = replace(machine, memory_bytes=int((least - 1) / share))
    ways = [
        f"{flags}   ({number(way.memory.total / GIB, 2)} GiB, calculado)"
        for flags, way in alternatives(asked, machine, plan.config.model_size)
    ]
    what = "mesmo com uma sequência por vez" if batch_size == 1 else f"com micro-lotes de {batch_size}"
    return SlmError(
        "E_MEMORY",
        f"a memória acabou {what}; o último checkpoint está intacto.",
        where=reported.splitlines()[0][:160] if reported else plan.config.output,
        hint="Pede menos, pelo cálculo:  " + "\n        ou:  ".join(ways) if ways else "Use um modelo menor.",
    )


def half_updated(plan: Plan, reported: str) -> SlmError:
    """E_MEMORY for an update that broke off between two weights."""
    return SlmError(
        "E_MEMORY",
        "a memória acabou no meio da atualização dos pesos; o último checkpoint está intacto.",
        where=reported.splitlines()[0][:160] if reported else plan.config.output,
        hint="Repita o mesmo comando: ele continua do último checkpoint, com micro-lotes menores.",
    )


def _device_name(plan: Plan) -> str:
    return torch.cuda.get_device_name(plan.device) if plan.device.type == "cuda" else "cpu"
