"""The training loop: step, evaluate, save, until the last step or a reason to stop; and a session's end.

A session may leave a usable model: the mean of its last weights (`train.average`), or a cooled one. A
cooldown is a branch at the end of a session: the learning rate falls to zero there. The stable phase is saved
first and stays the checkpoint to go on from. The branch writes no checkpoint, and its steps go to
RUN/cooldown.jsonl; it ends with RUN/final. A kill in the middle loses no step of the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ptbr_slm.train.average import SNAPSHOTS, WeightAverage
from ptbr_slm.train.config import CheckpointConfig, EvaluationConfig
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
    average: WeightAverage | None = None
    """The mean of its last weights."""


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
    evaluations, saves = _Interval(config.evaluation, trainer), _Interval(config.checkpoint, trainer)
    start = begins and trainer.spec.evaluates_start and evaluations.wanted
    if start or evaluations.on_step():
        trainer.observe(metrics)  # where a stop came between a step and its evaluation
    average = WeightAverage(trainer.parallel, ranks)
    while trainer.progress < 1.0:
        trainer.step_once(metrics)
        if (reason := _agree(trainer, signals.reason)) is not None:
            return Ended(reason)
        if evaluations.due():
            trainer.observe(metrics)
        if ranks.any(deadline.reached(trainer.pace.slowest_s, trainer.save_s, trainer.evaluation_s)):
            return Ended("max_time", average=_averaged(trainer, average))
        if deadline.last_part and _near_the_end(trainer, deadline):
            if config.cooldown == "session":
                return _cool_down(trainer, metrics, signals, deadline)
            _average(trainer, average, deadline)
        if not trainer.guards.state.high and saves.due():
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


class _Interval:
    """When something of a run is due: at multiples of so many steps, or every so many minutes of training.

    All ranks agree, for they have the main one's clock.
    """

    def __init__(self, asked: EvaluationConfig | CheckpointConfig, trainer: Trainer) -> None:
        self._every, self._seconds, self._trainer = asked.every, 60 * asked.minutes, trainer
        self._last_s = trainer.elapsed_s

    @property
    def wanted(self) -> bool:
        """Whether it is ever due before the end."""
        return bool(self._seconds if self._every is None else self._every)

    def on_step(self) -> bool:
        """Whether this step is one that it is due at by its number."""
        step = self._trainer.state.step
        return step > 0 and bool(self._every) and step % (self._every or 1) == 0

    def due(self) -> bool:
        """Whether it is due now; asked once after each step."""
        if self._every is not None:
            return self.on_step()
        now = self._trainer.elapsed_s
        if not self._seconds or now - self._last_s < self._seconds:
            return False
        self._last_s = now
        return True


def _near_the_end(trainer: Trainer, deadline: Deadline) -> bool:
    """Whether the session's last part has begun; not where the run itself will be over before it."""
    available = deadline.in_last_part(trainer.pace.slowest_s, trainer.save_s, trainer.evaluation_s)
    left_s = (trainer.config.max_steps - trainer.state.step) * trainer.pace.step_s
    return trainer.ranks.any(available is not None and left_s > available)


def _average(trainer: Trainer, average: WeightAverage, deadline: Deadline) -> None:
    """After a step of the session's last part: take the weights where they are due.

    Not where they cool down already or the loss is high; after a rollback the mean begins anew.
    """
    if trainer.cooling or trainer.state.step <= average.last_step:
        average.begin_anew()
    if trainer.cooling or trainer.guards.state.high:
        return
    age = deadline.age()
    if trainer.ranks.any(trainer.ranks.main and age >= average.next_s):
        end = deadline.end(trainer.save_s, trainer.evaluation_s)
        average.next_s = age + deadline.last_part * (end - deadline.began_s) / SNAPSHOTS
        average.add(trainer.state.step)


def _averaged(trainer: Trainer, average: WeightAverage) -> WeightAverage | None:
    """The mean with the weights of the session's last step; None where there is nothing to average."""
    if average.count and not trainer.cooling and trainer.state.step > average.last_step:
        average.add(trainer.state.step)
    return average if average.count > 1 else None


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
