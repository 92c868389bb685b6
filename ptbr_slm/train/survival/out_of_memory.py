"""The memory ran out in the middle of a run: the same step again, in smaller pieces.

The micro-batch in use is halved; what the run computes stays, since `train.step` sums the same sequences. It
is kept in RUN/micro_batch.json: a process that had to be started again does not meet the same wall.
"""

from __future__ import annotations

import gc
import json
from dataclasses import replace

import torch
from torch import nn

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.atomic import write_json
from ptbr_slm.text import number
from ptbr_slm.train.planning.choice import alternatives, setting
from ptbr_slm.train.planning.memory import GIB
from ptbr_slm.train.planning.plan import Plan

NAME = "micro_batch.json"


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


def remember(plan: Plan, rows: int) -> None:
    """Write down the micro-batch to use from now on; 0: not even one row was possible."""
    body = {"rows": rows, "asked": plan.config.batch_size, "device": _device_name(plan)}
    write_json(plan.config.output / NAME, body)


def remembered(plan: Plan) -> int:
    """The micro-batch to begin with: what was written down for this batch_size and device, or batch_size.

    Raises E_MEMORY where not even one row was possible; that is forgotten then, and tried again next time.
    """
    asked, file = plan.config.batch_size, plan.config.output / NAME
    try:
        body = json.loads(file.read_bytes())
        same = (body["asked"], body["device"]) == (asked, _device_name(plan))
        rows = int(body["rows"]) if same else asked
    except (OSError, ValueError, KeyError, TypeError):
        return asked
    if rows == 0:
        file.unlink(missing_ok=True)
        raise no_smaller(plan, "na tentativa anterior")
    return min(rows, asked)


def no_smaller(plan: Plan, said: str, rows: int = 1) -> SlmError:
    """E_MEMORY for what does not fit in micro-batches of `rows`, with what needs less by the calculation."""
    asked = replace(plan.request, batch_size=rows, checkpoint_every=plan.checkpoint_every, loss=plan.loss)
    least = setting(asked, plan.machine, rows, plan.checkpoint_every, plan.loss).memory.total
    machine, known = plan.machine, plan.machine.memory_bytes
    if known is None or machine.budget >= least:  # the calculation took it to fit, and was wrong
        share = machine.budget / known if known else 1.0
        machine = replace(machine, memory_bytes=int((least - 1) / share))
    ways = [
        f"{flags}   ({number(way.memory.total / GIB, 2)} GiB, calculado)"
        for flags, way in alternatives(asked, machine, plan.config.model_size)
    ]
    what = "mesmo com uma sequência por vez" if rows == 1 else f"com micro-lotes de {rows}"
    return SlmError(
        "E_MEMORY",
        f"a memória acabou {what}; o último checkpoint está intacto.",
        where=said.splitlines()[0][:160] if said else plan.config.output,
        hint="Pede menos, pelo cálculo:  " + "\n        ou:  ".join(ways) if ways else "Use um modelo menor.",
    )


def half_updated(plan: Plan, said: str) -> SlmError:
    """E_MEMORY for an update that broke off between two weights."""
    return SlmError(
        "E_MEMORY",
        "a memória acabou no meio da atualização dos pesos; o último checkpoint está intacto.",
        where=said.splitlines()[0][:160] if said else plan.config.output,
        hint="Repita o mesmo comando: ele continua do último checkpoint, com micro-lotes menores.",
    )


def _device_name(plan: Plan) -> str:
    return torch.cuda.get_device_name(plan.device) if plan.device.type == "cuda" else "cpu"
