"""A step, or an evaluation, that is done again in smaller pieces where the memory runs out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ptbr_slm.eval.bits import HeldOut
from ptbr_slm.train.evaluate import bits_per_byte
from ptbr_slm.train.step import (
    OutOfMemory,
    OutOfMemoryAmongOthers,
    StepResult,
    is_out_of_memory,
    optimizer_step,
)
from ptbr_slm.train.survival.out_of_memory import (
    NAME,
    free,
    half_updated,
    no_smaller,
    random_states,
    remember,
    restore_random,
    weight_versions,
)

if TYPE_CHECKING:
    from ptbr_slm.train.loop import Trainer


def attempt(trainer: Trainer, windows: list[range]) -> StepResult:
    """One step over these windows; where the memory runs out, again with smaller micro-batches."""
    random, versions = random_states(trainer.plan.device), weight_versions(trainer.model)
    while True:
        said, rejoined = "", trainer.ranks.world == 1
        try:
            return optimizer_step(
                trainer.model,
                trainer.optimizer,
                trainer.micro_batches(windows),
                precision=trainer.plan.precision,
                scaler=trainer.scaler,
                gradient_clip=trainer.config.optimizer.gradient_clip,
                parallel=trainer.parallel,
                ranks=trainer.ranks,
            )
        except OutOfMemory as error:
            said, rejoined = str(error), not isinstance(error, OutOfMemoryAmongOthers)
        except (RuntimeError, MemoryError) as error:
            if not (isinstance(error, MemoryError) or is_out_of_memory(error)):
                raise
            said = str(error)
        # Outside the except blocks, whose tracebacks would keep every tensor of the partial step alive.
        if versions != weight_versions(trainer.model):
            rejoined = False  # half of the weights are updated already: only a checkpoint is whole
        _make_smaller(trainer, said, rejoined)
        restore_random(random, trainer.plan.device)


def _make_smaller(trainer: Trainer, said: str, rejoined: bool) -> None:
    """Halve the micro-batch. rejoined: whether this process, and all others, can do the step again.

    Raises E_MEMORY where it is a single row already, OutOfMemoryAmongOthers where not rejoined.
    """
    trainer.optimizer.zero_grad(set_to_none=True)
    free(trainer.plan.device)
    before, trainer.rows = trainer.rows, trainer.rows // 2
    if trainer.ranks.main or not rejoined:
        remember(trainer.plan, trainer.rows)
    if not rejoined:
        raise half_updated(trainer.plan, said) if trainer.ranks.world == 1 else OutOfMemoryAmongOthers(said)
    if trainer.rows == 0:
        trainer.rows = before
        trainer.ranks.from_main(lambda: (trainer.config.output / NAME).unlink(missing_ok=True))
        raise no_smaller(trainer.plan, said)
    if trainer.scaler is not None:  # it may wait for an update that never came
        trainer.scaler = _same_scaler(trainer.scaler, trainer.plan.device)
    message = (
        f"A memória acabou no passo {trainer.state.step + 1}: micro-lote de {before} para {trainer.rows}, "
        "e o mesmo passo de novo. O resultado não muda."
    )
    trainer.listener.event(
        {
            "event": "out_of_memory",
            "step": trainer.state.step + 1,
            "before": before,
            "after": trainer.rows,
            "said": said.splitlines()[0][:200] if said else "",
            "message": message,
        }
    )


def evaluate(trainer: Trainer, text: HeldOut) -> float:
    """Bits per byte on the held-out part; row by row if need be. Raises E_MEMORY, OutOfMemoryAmongOthers."""
    rows = trainer.rows
    while True:
        try:
            return bits_per_byte(trainer.parallel, text, rows, trainer.plan.precision, trainer.ranks)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            said = str(error)
        free(trainer.plan.device)
        rows //= 2
        if rows == 0:
            raise no_smaller(trainer.plan, said)
        if trainer.ranks.world > 1:  # the others wait for this rank's share
            remember(trainer.plan, rows)
            raise OutOfMemoryAmongOthers(said)


def _same_scaler(scaler: torch.amp.GradScaler, device: torch.device) -> torch.amp.GradScaler:
    """A scaler in the same state that is not in the middle of a step."""
    fresh = torch.amp.GradScaler(device.type)
    fresh.load_state_dict(scaler.state_dict())
    return fresh
