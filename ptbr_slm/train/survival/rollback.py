"""After a loss spike: which checkpoint to go back to, and which data to leave out from there.

`ptbr_slm.train.trainer` applies the decision. It writes the checkpoint again with the windows to leave out
and the rollbacks, and then drops the abandoned steps from metrics.jsonl. A run that is killed in between
rolls back again when it is resumed, or has rolled back already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.atomic import discard
from ptbr_slm.train.checkpoint.files import list_checkpoints, read_state, step_of
from ptbr_slm.train.checkpoint.resume import set_aside
from ptbr_slm.train.events import Listener, RolledBack, Warned
from ptbr_slm.train.run_folder import is_our_checkpoint
from ptbr_slm.train.state import TrainState
from ptbr_slm.train.survival.guards import GuardState, StepFigures, diverged, last_good


@dataclass(frozen=True, slots=True)
class Rollback:
    """The state to load: the run at `checkpoint`, with the windows to leave out."""

    checkpoint: Path
    state: TrainState
    """The checkpoint's, with the windows to leave out and this rollback added."""
    event: RolledBack


def newest_good(folder: Path, high_step: int, listener: Listener) -> Path | None:
    """The newest checkpoint of before the spike that is intact. A corrupt one is reported and skipped."""
    paths = {step_of(path): path for path in list_checkpoints(folder)}
    while (step := last_good(list(paths), high_step)) is not None:
        path = paths.pop(step)
        try:
            read_state(path)
        except SlmError as error:
            if error.code != "E_CHECKPOINT_CORRUPT":
                raise
            message = f"{error.message} Pulado: {path.name}."
            listener.event(Warned(code=error.code, where=str(path), message=message))
        else:
            return path
    return None


def decide(
    checkpoint: Path,
    old: TrainState,
    now: TrainState,
    guard: GuardState,
    figures: StepFigures,
    *,
    max_rollbacks: int,
    run: str,
) -> Rollback:
    """How to go back to `checkpoint`, whose state is `old`, from `now`.

    figures: of the step that was the spike. run: its folder, for the message. Raises E_TRAINING_DIVERGED
    where max_rollbacks are used up.
    """
    since = guard.high_step
    if len(now.rollbacks) >= max_rollbacks:
        why = f"a perda saltou no passo {since}, já depois de {len(now.rollbacks)} volta(s) a um checkpoint"
        raise diverged(why, figures, guard, run)
    start = max(old.cursor, guard.high_cursor)
    if any(record["step"] == old.step for record in now.rollbacks):
        start = old.cursor  # once was not enough: leave out all that was read since this checkpoint
    event = _event(figures, old.step, since, guard.mean, (start, now.cursor))
    return Rollback(
        checkpoint,
        replace(
            old,
            skipped_windows=[*now.skipped_windows, list(event.skipped_windows)],
            rollbacks=[*now.rollbacks, event.record()],
            cooldown_cursor=now.cooldown_cursor,  # what a cooldown has read since then stays left out
        ),
        event,
    )


def no_checkpoint(high_step: int) -> Warned:
    """The warning where nothing was saved before the spike."""
    message = (
        f"a perda saltou no passo {high_step} e não há checkpoint anterior a isso: o treino segue daqui."
    )
    return Warned(code="loss_spike", message=message)


def remove_later(folder: Path, step: int) -> None:
    """Remove the checkpoints of the abandoned steps, newest first; what is not provably ours is renamed.

    A kill in between resumes from one of them, meets the spike again and rolls back again.
    """
    for path in list_checkpoints(folder):
        if step_of(path) > step:
            if is_our_checkpoint(path):
                discard(path)
            else:
                set_aside(path, "replaced")


def missing_events(state: TrainState, recorded: int) -> Sequence[RolledBack]:
    """The rollbacks that a kill kept from metrics.jsonl, which has `recorded` of them."""
    return [RolledBack.from_record(record) for record in state.rollbacks[recorded:]]


def _event(figures: StepFigures, step: int, since: int, mean: float, windows: tuple[int, int]) -> RolledBack:
    message = (
        f"A perda saltou no passo {since} (está em {figures.loss:.3f}; a média era {mean:.3f}): de volta ao "
        f"checkpoint do passo {step}, sem as janelas {windows[0]} a {windows[1] - 1}."
    )
    return RolledBack(
        step=step,
        from_step=figures.step,
        high_since=since,
        loss=figures.loss,
        mean_loss=mean,
        grad_norm=figures.grad_norm,
        learning_rate=figures.learning_rate,
        skipped_windows=windows,
        message=message,
    )
