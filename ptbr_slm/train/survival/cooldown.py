"""The end of a session that wants a usable model: a branch in which the learning rate falls to zero.

The stable phase is saved first and stays the checkpoint to go on from. The branch writes no checkpoint, and
its steps go to RUN/cooldown.jsonl; it ends with RUN/final. Killed in the middle, no step of the run is
lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ptbr_slm.train.reporting.metrics import MetricsLog
from ptbr_slm.train.reporting.status import duration
from ptbr_slm.train.schedule import cooldown_factor
from ptbr_slm.train.survival.session import Deadline
from ptbr_slm.train.survival.stop import SignalGuard, StopReason

if TYPE_CHECKING:
    from ptbr_slm.train.loop import Trainer

LOG = "cooldown.jsonl"


@dataclass(slots=True)
class Branch:
    """A cooldown that has begun."""

    stable: Path
    """The checkpoint of the stable phase that it left."""
    step: int
    """That checkpoint's step."""
    tokens: int
    """Target tokens trained on until there."""
    factor: float = 1.0
    """Of the schedule's rate, in the next step."""
    finished: bool = False
    """Whether it came to its end, and its weights are worth keeping."""
    bits_per_byte: float | None = None
    """Of the cooled model, on the held-out part."""


def time_to_cool(trainer: Trainer, deadline: Deadline) -> bool:
    """Whether the branch should begin now; not where the run itself will be over before the session is."""
    room = deadline.cooling(trainer.pace.slowest_s, trainer.save_s, trainer.evaluation_s)
    left_s = (trainer.config.max_steps - trainer.state.step) * trainer.pace.step_s
    return trainer.ranks.any(room is not None and left_s > room)


def cool_down(trainer: Trainer, metrics: MetricsLog, signals: SignalGuard, deadline: Deadline) -> StopReason:
    """Save the stable phase, then train to the end of the session with a falling rate. Why it ended."""
    branch = Branch(trainer.save(), trainer.state.step, trainer.state.tokens)
    trainer.begin_branch(branch)
    now = [deadline.age(), deadline.end(trainer.save_s, trainer.evaluation_s)]
    begin, end = trainer.ranks.exchange(now)[0]  # the main rank's
    message = f"Resfriamento até o fim da sessão ({duration(end - begin)}), a partir do passo {branch.step}."
    trainer.listener.event({"event": "cooldown", "step": branch.step, "message": message})
    file = trainer.config.output / LOG
    trainer.ranks.from_main(lambda: file.unlink(missing_ok=True))
    with MetricsLog(file, branch.step, writes=trainer.ranks.main) as log:
        while trainer.progress < 1.0:
            age, slowest = trainer.ranks.exchange([deadline.age(), trainer.pace.slowest_s])[0]
            if age + slowest > end and trainer.state.step > branch.step:
                break
            share = (age - begin) / max(end - begin, 1e-9)
            branch.factor = cooldown_factor(share, trainer.config.schedule.cooldown_shape)
            trainer.step_once(log)
            if (reason := trainer.agree(signals.reason)) is not None:
                return reason
        trainer.observe(log)
        branch.bits_per_byte = log.last("eval").get("bits_per_byte")
    branch.finished = True
    record = {"event": "cooldown", "step": branch.step, "until_step": trainer.state.step}
    metrics.write(record | {"bits_per_byte": branch.bits_per_byte})
    return "max_time"
