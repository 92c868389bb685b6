"""Learning rate range test (Smith, 2017, arXiv:1506.01186, section 3.3): one short run whose rate grows from
step to step, on the real model, data and optimizer. Nothing of it is kept.
"""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ptbr_slm.errors import SlmError, named_instead
from ptbr_slm.model import Llama
from ptbr_slm.privacy import keep_matplotlib_out_of_home
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.train.config import TrainConfig
from ptbr_slm.train.events import Silent
from ptbr_slm.train.gpu_settings import prepare_gpu
from ptbr_slm.train.optim import build_optimizer, set_learning_rate
from ptbr_slm.train.planning.plan import Plan
from ptbr_slm.train.process import keep_freed_memory
from ptbr_slm.train.reporting.curves import smoothed
from ptbr_slm.train.spec import TrainingData, TrainSpec
from ptbr_slm.train.step import OutOfMemory, optimizer_step
from ptbr_slm.train.survival.out_of_memory import no_smaller

SMOOTHING = 0.9
"""Memory of the running mean of the loss, in steps: about ten."""
PEAK_SHARE = 0.1
"""Of the rate at which the loss was lowest. A short test likes higher rates than a run does: with 2.0M
parameters its tenth was 2.0e-3 for AdamW and 2.6e-3 for Muon, whose best in trials were 1.5e-3 and 3e-3."""
DIVERGED = 0.5
"""Of what the smoothed loss had fallen: a rise by that much, and by MARGIN at least, ends the test."""
MARGIN = 0.3
"""Nats."""


@dataclass(frozen=True, slots=True)
class Point:
    """One step of the test."""

    rate: float
    loss: float
    """Nats a token, of this step's batch."""
    smoothed: float


@dataclass(frozen=True, slots=True)
class RangeTest:
    """What a test found."""

    points: tuple[Point, ...]
    parameters: int
    tokens_per_step: int
    optimizer: str
    diverged: bool
    """Whether it ended because the loss rose, and not at the highest rate."""

    @property
    def lowest(self) -> Point:
        """Where the smoothed loss was lowest."""
        return min(self.points, key=lambda point: point.smoothed)

    @property
    def suggestion(self) -> float:
        """A peak learning rate: PEAK_SHARE of the rate with the lowest smoothed loss, two digits."""
        return float(f"{PEAK_SHARE * self.lowest.rate:.1e}")


def find_lr(
    config: TrainConfig,
    *,
    steps: int = 100,
    lowest: float = 1e-5,
    highest: float = 1.0,
    progress: Callable[[float, str], None] = lambda done, status: None,
    spec: TrainSpec | None = None,
) -> RangeTest:
    """Train for up to `steps` steps while the rate grows exponentially from `lowest` to `highest`.

    spec: what is trained; by default a model on prepared text.
    Ends early where the loss rises again by half of its fall, or is no number. Leaves no run folder.
    Raises what `train` would raise before its first step, E_MEMORY, and E_TRAINING_DIVERGED where `lowest` is
    too high.
    """
    keep_freed_memory()
    prepare_gpu(config)
    with (
        tempfile.TemporaryDirectory(prefix="ptbr-slm-find-lr-") as cache,
        named_instead(Path(cache), config.data),
    ):
        spec = spec or TrainSpec()
        data = spec.open_data(replace(config, output=Path(cache)), _OnlyProgress(progress))
        source = None if config.init_from is None else ModelFolder(config.init_from)
        plan = spec.plan(config, data, 1, source)
        data.check_enough(plan.config)
        rates = np.geomspace(lowest, highest, steps).tolist()
        losses: list[float] = []
        try:
            for rate, loss in zip(rates, _train(plan, data, source, spec, rates), strict=True):
                if not math.isfinite(loss):
                    break
                losses.append(loss)
                mean = smoothed(losses, SMOOTHING)
                progress(len(losses) / steps, f"taxa {rate:.1e}, perda {mean[-1]:.3f}")
                if mean[-1] > min(mean) + max(MARGIN, DIVERGED * (mean[0] - min(mean))):
                    break
        except OutOfMemory as error:
            raise no_smaller(plan, str(error), plan.config.batch_size) from error
    if not losses:
        raise SlmError(
            "E_TRAINING_DIVERGED",
            f"a perda não é um número já na menor taxa ({lowest:.1e}).",
            where="--min-rate",
            hint="Confira os dados com:  ptbr-slm data stats DADOS",
        )
    return RangeTest(
        points=tuple(map(Point, rates, losses, smoothed(losses, SMOOTHING))),
        parameters=plan.model.num_parameters,
        tokens_per_step=plan.config.step_tokens,
        optimizer=plan.config.optimizer.name,
        diverged=len(losses) < steps,
    )


class _OnlyProgress(Silent):
    """A listener that passes on the progress of preparing."""

    def __init__(self, progress: Callable[[float, str], None]) -> None:
        self._progress = progress

    def progress(self, done: float, status: str) -> None:
        """As `Listener.progress`."""
        self._progress(done, status)


def _train(
    plan: Plan, data: TrainingData, source: ModelFolder | None, spec: TrainSpec, rates: list[float]
) -> Iterator[float]:
    """The loss of one step at each rate."""
    config = plan.config
    batches = data.batches(config)
    model = _model(plan, data, source, spec)
    optimizer = build_optimizer(model, config.optimizer, precision=plan.precision.name)
    scaler = torch.amp.GradScaler(plan.device.type) if plan.precision.needs_scaler else None
    for step, rate in enumerate(rates):
        set_learning_rate(optimizer, rate)
        first = step * config.step_sequences
        sequences = batches.sequences([range(first, first + config.step_sequences)])
        yield optimizer_step(
            model,
            optimizer,
            sequences.split(config.batch_size),
            precision=plan.precision,
            scaler=scaler,
            gradient_clip=config.optimizer.gradient_clip,
        ).loss


def _model(plan: Plan, data: TrainingData, source: ModelFolder | None, spec: TrainSpec) -> Llama:
    model = Llama(plan.model)
    spec.prepare_model(model, plan, data)
    model.to(plan.device).train()
    model.checkpoint_every = plan.checkpoint_every
    model.loss, model.z_loss = plan.loss, plan.config.z_loss
    if source is not None:
        return model.load_hf_weights(source.weights.read)
    return model.initialize(plan.config.seed)


def plot(test: RangeTest) -> str:
    """The curve as SVG."""
    keep_matplotlib_out_of_home()
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    rates = [point.rate for point in test.points]
    axes.plot(rates, [point.loss for point in test.points], color="#b9c6d3", linewidth=1, label="perda")
    axes.plot(rates, [point.smoothed for point in test.points], color="#0b5394", label="perda suavizada")
    axes.axvline(test.suggestion, color="#38761d", linestyle="--", label=f"sugestão: {test.suggestion:.1e}")
    axes.set(xscale="log", xlabel="taxa de aprendizado", ylabel="perda (nats por token)")
    axes.grid(alpha=0.3)
    axes.legend()
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
