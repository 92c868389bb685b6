"""The training loop: step, evaluate, save, until the last step or a reason to stop; and a session's cooldown.

A cooldown is a branch at the end of a session that wants a usable model: the learning rate falls to zero
there. The stable phase is saved first and stays the checkpoint to go on from. The branch writes no
checkpoint, and its steps go to RUN/cooldown.jsonl; it ends with RUN/final. A kill in the middle
loses no step of the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ptbr_slm.train.events import CooldownEnded, CooldownStarted, Evaluated, RolledBack
from ptbr_slm.train.reporting.metrics import MetricsLog
from ptbr_slm.train.reporting.status import duration
from ptbr_slm.train.run_folder import COOLDOWN
from ptbr_slm.train.schedule import cooldown_factor
from ptbr_slm.train.session import Deadline, SignalGuard, StopReason, most_urgent, urgency
from ptbr_slm.train.survival.rollback import missing_events
from ptbr_slm.train.trainer import Trainer


@dataclass(slots=True)
class Branch:
    """A cooldown."""

    stable: Path
    """The checkpoint of the stable phase that it left."""
    step: int
    """That checkpoint's step."""
    tokens: int
    """Target tokens trained on until there."""
    finished: bool = False
    """Whether it came to its end, and its weights are worth keeping."""
    bits_per_byte: float | None = None
    """Of the cooled model, on the held-out part."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How the loop ended."""

    reason: StopReason | None
    """None at the end of the run."""
    branch: Branch | None = None
    """The cooldown that the session ended with."""


def run_loop(trainer: Trainer, metrics: MetricsLog, signals: SignalGuard, deadline: Deadline) -> Ended:
    """Train to the end, or until something asks to stop. Saves on its schedule, not at the end.

    Raises E_TRAINING_DIVERGED, E_MEMORY, E_DISK_FULL.
    """
    config, ranks = trainer.config, trainer.ranks
    trainer.begin(deadline)
    _agree(trainer, None)
    for event in missing_events(trainer.state, metrics.count(RolledBack)):
        metrics.write(event)
    if config.compile:
        compile_layers_of(trainer)
    begins = trainer.state.step == 0
    if begins:
        trainer.watch(metrics)
    start = begins and trainer.spec.evaluates_start and bool(config.evaluation.every)
    if start or _due(trainer, config.evaluation.every):
        trainer.observe(metrics)  # where a stop came between a step and its evaluation
    while trainer.progress < 1.0:
        trainer.step_once(metrics)
        if (reason := _agree(trainer, signals.reason)) is not None:
            return Ended(reason)
        if _due(trainer, config.evaluation.every):
            trainer.observe(metrics)
        if ranks.any(deadline.reached(trainer.pace.slowest_s, trainer.save_s, trainer.evaluation_s)):
            return Ended("max_time")
        if deadline.cooldown_fraction and _time_to_cool(trainer, deadline):
            return _cool_down(trainer, metrics, signals, deadline)
        if _due(trainer, config.checkpoint.every) and not trainer.guards.state.high:
            trainer.save()
    return Ended(None)


def compile_layers_of(trainer: Trainer) -> bool:
    """Compile the layers of a run, compared on its next micro-batch; whether they are used."""
    from ptbr_slm.train.compile import compile_layers  # 2 s of imports that others need not wait for

    return compile_layers(
        trainer.parallel,
        trainer.next_micro_batch(),
        trainer.plan.precision,
        trainer.listener,
        ranks=trainer.ranks,
        scale=1.0 if trainer.scaler is None else trainer.scaler.get_scale(),
    )


def _agree(trainer: Trainer, reason: StopReason | None) -> StopReason | None:
    """After each step the ranks take the main one's clock, and the most urgent reason to stop."""
    if trainer.ranks.world == 1:
        return reason
    return most_urgent(int(number) for number in trainer.share_clock(urgency(reason)))


def _due(trainer: Trainer, every: int) -> bool:
    return bool(every) and trainer.state.step > 0 and trainer.state.step % every == 0


def _time_to_cool(trainer: Trainer, deadline: Deadline) -> bool:
    """Whether the branch should begin now; not where the run itself will be over before the session is."""
    available = deadline.cooling(trainer.pace.slowest_s, trainer.save_s, trainer.evaluation_s)
    left_s = (trainer.config.max_steps - trainer.state.step) * trainer.pace.step_s
    return trainer.ranks.any(available is not None and left_s > available)


def _cool_down(trainer: Trainer, metrics: MetricsLog, signals: SignalGuard, deadline: Deadline) -> Ended:
    """Save the stable phase, then train to the end of the session with a falling rate."""
    branch, ranks = Branch(trainer.save(), trainer.state.step, trainer.state.tokens), trainer.ranks
    trainer.begin_branch()
    now = [deadline.age(), deadline.end(trainer.save_s, trainer.evaluation_s)]
    begin, end = ranks.exchange(now)[0]  # the main rank's
    message = f"Resfriamento até o fim da sessão ({duration(end - begin)}), a partir do passo {branch.step}."
    trainer.listener.event(CooldownStarted(step=branch.step, message=message))
    file = trainer.config.output / COOLDOWN
    ranks.from_main(lambda: file.unlink(missing_ok=True))
    with MetricsLog(file, branch.step, writes=ranks.main) as log:
        while trainer.progress < 1.0:
            age, slowest = ranks.exchange([deadline.age(), trainer.pace.slowest_s])[0]
            if age + slowest > end and trainer.state.step > branch.step:
                break
            share = (age - begin) / max(end - begin, 1e-9)
            trainer.rate_factor = cooldown_factor(share, trainer.config.schedule.cooldown_shape)
            trainer.step_once(log)
            if (reason := _agree(trainer, signals.reason)) is not None:
                return Ended(reason, branch)
        trainer.observe(log)
        evaluated = log.last(Evaluated)
    branch.bits_per_byte = None if evaluated is None else evaluated.bits_per_byte
    branch.finished = True
    metrics.write(
        CooldownEnded(step=branch.step, until_step=trainer.state.step, bits_per_byte=branch.bits_per_byte)
    )
    return Ended("max_time", branch)
