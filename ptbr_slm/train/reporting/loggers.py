"""TensorBoard, trackio and Weights & Biases, each through its own library, as listeners beside the printer.

All write below the run's folder and need no network: trackio and wandb are set to stay offline unless the
user's own environment (TRACKIO_SPACE_ID, WANDB_MODE) says otherwise. What a logger does, or fails to do,
never changes or stops a run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Protocol

from ptbr_slm.errors import SlmError, missing_extra
from ptbr_slm.events import Event
from ptbr_slm.train.events import Evaluated, Listener, Sampled, Step, TasksScored, Warned

PROJECT = "ptbr-slm"


class Logger(Protocol):
    """A library that draws curves."""

    def numbers(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Finite numbers of one moment; `group` is `train` or `eval`."""

    def text(self, name: str, text: str, step: int) -> None:
        """A sample."""

    def close(self) -> None:
        """Write what is not yet written."""


class TensorBoard:
    """Event files in RUN/tensorboard, by torch's own writer: `tensorboard --logdir RUN/tensorboard`."""

    def __init__(self, run: Path, config: Mapping[str, Any], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # A run that a kill set back to `step` writes the steps after it again: hide the first ones.
        self._writer: Any = SummaryWriter(run / "tensorboard", purge_step=step + 1 if step else None)
        lines = "\n".join(f"    {key} = {value}" for key, value in config.items())
        self._writer.add_text("config", lines, step)

    def numbers(self, group: str, values: Mapping[str, float], step: int) -> None:
        """One curve a number."""
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)

    def text(self, name: str, text: str, step: int) -> None:
        """Indented: Markdown that the model wrote stays as it is."""
        self._writer.add_text(name, "    " + text.replace("\n", "\n    "), step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class Trackio:
    """A database in RUN/trackio: `TRACKIO_DIR=RUN/trackio trackio show`."""

    def __init__(self, run: Path, config: Mapping[str, Any], step: int) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(run / "trackio"))
        import trackio

        self._library: Any = trackio
        self._run: Any = trackio.init(
            PROJECT, name=run.name, config=dict(config), resume="allow", embed=False, auto_log_cpu=False
        )

    def numbers(self, group: str, values: Mapping[str, float], step: int) -> None:
        """One curve a number."""
        self._run.log({f"{group}/{name}": value for name, value in values.items()}, step=step)

    def text(self, name: str, text: str, step: int) -> None:
        """As Markdown."""
        self._run.log({name: self._library.Markdown(text)}, step=step)

    def close(self) -> None:
        """Wait until all is in the database; the library's own function, or it would finish again at exit."""
        self._library.finish()


class WeightsAndBiases:
    """Files in RUN/wandb, to send later with `wandb sync`; at once with WANDB_MODE=online."""

    def __init__(self, run: Path, config: Mapping[str, Any], step: int) -> None:
        for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):  # logs of its own, else in the user's ~/.cache
            os.environ.setdefault(name, str(run / "wandb"))
        import wandb

        library: Any = wandb
        self._run: Any = library.init(
            project=PROJECT,
            name=run.name,
            id=hashlib.sha256(os.fsencode(run.resolve())).hexdigest()[:12],  # one run, however many sessions
            dir=str(run),
            config=dict(config),
            resume="allow",
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=library.Settings(console="off", silent=True),
        )

    def numbers(self, group: str, values: Mapping[str, float], step: int) -> None:
        """One curve a number."""
        self._run.log({f"{group}/{name}": value for name, value in values.items()}, step=step)

    def text(self, name: str, text: str, step: int) -> None:
        """As the run's newest text of this name."""
        self._run.summary[name] = text

    def close(self) -> None:
        """Write what is left."""
        self._run.finish()


KINDS: dict[str, tuple[Callable[[Path, Mapping[str, Any], int], Logger], str]] = {
    "tensorboard": (TensorBoard, "tensorboard"),
    "trackio": (Trackio, "trackio"),
    "wandb": (WeightsAndBiases, "wandb"),
}
"""Name in --logger -> (logger, the module that it needs)."""


def check_loggers(names: Sequence[str]) -> None:
    """Raise E_CONFIG for a name that we do not know, E_DEPENDENCY for one whose library is not installed."""
    for name in names:
        if name not in KINDS:
            raise SlmError(
                "E_CONFIG",
                f"não conheço o registrador {name!r}.",
                where="--logger",
                hint=f"Use {', '.join(KINDS)}, um ou mais, separados por vírgula.",
            )
        module = KINDS[name][1]
        if importlib.util.find_spec(module) is None:
            raise missing_extra(module)


class Loggers:
    """A listener that passes everything on, numbers to the loggers too. A logger that fails is dropped."""

    def __init__(self, listener: Listener, loggers: dict[str, Logger]) -> None:
        self._listener, self._loggers = listener, loggers

    def event(self, event: Event) -> None:
        """Hand on; log the numbers of steps and evaluations, and the samples."""
        self._listener.event(event)
        match event:
            case Step(step=step) | Evaluated(step=step):
                group, values = "train" if isinstance(event, Step) else "eval", numbers_of(event.record())
                self._each(lambda logger: logger.numbers(group, values, step))
            case TasksScored(step=step, scores=scores):
                self._each(lambda logger: logger.numbers("tasks", dict(scores), step))
            case Sampled(step=step, prompt=prompt, text=text):
                self._each(lambda logger: logger.text(f"sample/{prompt}", f"{prompt}{text}", step))

    def progress(self, done: float, status: str) -> None:
        """Hand on."""
        self._listener.progress(done, status)

    def close(self) -> None:
        """Close all of them."""
        self._each(lambda logger: logger.close())

    def _each(self, act: Callable[[Logger], None]) -> None:
        for name, logger in list(self._loggers.items()):
            try:
                with redirect_stdout(io.StringIO()):  # stdout belongs to --json
                    act(logger)
            except Exception as error:
                del self._loggers[name]
                self._listener.event(_failed(name, error))


@contextmanager
def with_loggers(
    names: Sequence[str], listener: Listener, run: Path, config: Mapping[str, Any], step: int
) -> Iterator[Listener]:
    """The listener of a run that goes on from `step`, with these loggers beside it; closed at the end."""
    loggers: dict[str, Logger] = {}
    for name in names:
        try:
            with redirect_stdout(io.StringIO()):
                loggers[name] = KINDS[name][0](run, config, step)
        except Exception as error:
            listener.event(_failed(name, error))
    together = Loggers(listener, loggers)
    try:
        yield together
    finally:
        together.close()


def numbers_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a record, its step left out."""
    return {
        key: float(value)
        for key, value in record.items()
        if key != "step"
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    }


def _failed(name: str, error: Exception) -> Warned:
    first = (str(error).splitlines() or [""])[0][:200]
    message = (
        f"o registrador {name} falhou ({type(error).__name__}: {first}) e foi desligado; o treino segue."
    )
    return Warned(code="logger", logger=name, message=message)
