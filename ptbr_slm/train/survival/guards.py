"""Checks of every step: a loss that is not a number, a loss scale at its minimum, a loss that jumps.

Each step ends in `Guards.judge`, which changes nothing in the run: it classifies the step, and raises
E_TRAINING_DIVERGED where the run cannot recover. Its state is `GuardState`, saved in every checkpoint, so
that a resumed run decides as one that was never stopped. No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ptbr_slm.errors import SlmError
from ptbr_slm.text import number
from ptbr_slm.train.config import GuardConfig
from ptbr_slm.train.events import Warned

MEMORY = 50
"""Steps that the running mean of the loss averages over."""
LEAST_SIGMA = 0.01
"""Smallest standard deviation used, as a share of the mean: else a loss almost without noise spikes often."""
MAX_SKIPS = 25
"""fp16 steps skipped in a row before giving up: the scale has then fallen by 2^25."""
SKIP_WINDOW = 100
"""Steps that are counted; with more than half of them skipped, no scale fits."""
LEAST_SCALE = 1.0
"""A loss scale that falls to this has no use: the unscaled gradients overflow."""
_HISTORY = 12

Verdict = Literal["good", "dropped", "high", "spike"]
"""`dropped`: no update was made. `high`: the loss is far above its mean. `spike`: it has stayed there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepFigures:
    """The figures of one optimizer step."""

    step: int
    """Its number, from 1."""
    cursor: int
    """The first window it read (`train.batches`)."""
    windows: int
    """How many it read."""
    loss: float
    grad_norm: float
    learning_rate: float
    applied: bool
    """Whether the weights were updated."""
    scale: float | None = None
    """The loss scale after the step; None without a scaler."""
    bad_parts: Sequence[int] = ()
    """Micro-batches, from 1, whose loss or gradient was not finite."""
    parts: int = 1
    """Micro-batches of the step."""


@dataclass(kw_only=True)
class GuardState:
    """State of the guards between steps; plain numbers, kept in state.json."""

    mean: float = 0.0
    """Running mean of the loss; steps above the limit are not in it."""
    variance: float = 0.0
    seen: int = 0
    """Losses in the mean."""
    high: int = 0
    """Losses above the limit in a row, up to now."""
    high_step: int = 0
    """The first step of them."""
    high_cursor: int = 0
    """The first window of the step before it, whose update is the likely cause."""
    last_cursor: int = 0
    """The first window of the last step."""
    bad: int = 0
    """Steps in a row whose loss or fp32/bf16 gradient was not finite."""
    bad_step: int = 0
    """The first step of them."""
    skips: list[int] = field(default_factory=list)
    """fp16 steps skipped among the last SKIP_WINDOW."""
    skips_in_a_row: int = 0
    scales: list[list[float]] = field(default_factory=list)
    """[step, loss scale] at its last changes."""


class Guards:
    """Judges every step of a run."""

    def __init__(self, settings: GuardConfig, state: GuardState | None = None, *, run: str = "") -> None:
        """run: the run's folder, for messages."""
        self.settings, self.state, self.run = settings, state or GuardState(), run

    @property
    def limit(self) -> float:
        """The loss above which a step counts as high; infinite while there is too little to go by."""
        if not self.settings.spike_sigmas or self.state.seen < self.settings.spike_after:
            return math.inf
        sigma = max(math.sqrt(self.state.variance), LEAST_SIGMA * abs(self.state.mean))
        return self.state.mean + self.settings.spike_sigmas * sigma

    def judge(self, figures: StepFigures) -> Verdict:
        """What this step was. Raises E_TRAINING_DIVERGED where dropping steps does not help."""
        state = self.state
        self._note_scale(figures)
        if not figures.applied:
            verdict: Verdict = "dropped"
            overflow = figures.scale is not None and math.isfinite(figures.loss)
            self._skipped(figures) if overflow else self._bad(figures)
        else:
            state.bad = state.skips_in_a_row = 0
            verdict = self._loss(figures)
        state.last_cursor = figures.cursor
        return verdict

    def _note_scale(self, figures: StepFigures) -> None:
        scales = self.state.scales
        if figures.scale is not None and (not scales or scales[-1][1] != figures.scale):
            scales.append([figures.step, figures.scale])
            del scales[:-_HISTORY]

    def _loss(self, figures: StepFigures) -> Verdict:
        state = self.state
        if figures.loss > self.limit:
            if state.high == 0:
                state.high_step, state.high_cursor = figures.step, state.last_cursor
            state.high += 1
            return "spike" if state.high >= self.settings.spike_steps else "high"
        state.high = 0
        state.seen += 1
        weight = max(1 / state.seen, 1 / MEMORY)  # a plain mean at first, then an exponential one
        difference = figures.loss - state.mean
        state.mean += weight * difference
        state.variance = (1 - weight) * (state.variance + weight * difference * difference)
        return "good"

    def accept_level(self) -> None:
        """Take the present loss as normal: measure mean and spread anew."""
        self.state.seen = self.state.high = 0
        self.state.mean = self.state.variance = 0.0

    def _skipped(self, figures: StepFigures) -> None:
        """An fp16 gradient overflowed; the scaler has halved its scale."""
        state = self.state
        state.bad = 0
        state.skips_in_a_row += 1
        state.skips = [step for step in state.skips if step > figures.step - SKIP_WINDOW] + [figures.step]
        assert figures.scale is not None
        if figures.scale <= LEAST_SCALE:
            why = f"a escala da perda caiu a {number(figures.scale, 2)}, onde já não protege nada"
        elif state.skips_in_a_row >= MAX_SKIPS:
            why = f"{state.skips_in_a_row} passos seguidos foram saltados porque o gradiente passou do fp16"
        elif len(state.skips) > SKIP_WINDOW // 2:
            share = f"{len(state.skips)} dos últimos {SKIP_WINDOW}"
            why = f"{share} passos foram saltados: o gradiente não cabe em fp16"
        else:
            return
        raise diverged(why, figures, state, self.run)

    def _bad(self, figures: StepFigures) -> None:
        """The loss, or a gradient that no scaler could have overflowed, is not a number."""
        state = self.state
        state.bad += 1
        if state.bad == 1:
            state.bad_step = figures.step
        if state.bad >= self.settings.max_bad_steps:
            steps = (
                f"no passo {figures.step}"
                if state.bad == 1
                else f"do passo {state.bad_step} ao {figures.step}"
            )
            raise diverged(
                f"a perda ou o gradiente deixou de ser um número {steps}", figures, state, self.run
            )


def diverged(why: str, figures: StepFigures, state: GuardState, run: str) -> SlmError:
    """E_TRAINING_DIVERGED with all that a person needs to decide what to change."""
    facts = [
        f"passo {figures.step}",
        f"perda {figures.loss:.4g}",
        f"norma do gradiente {figures.grad_norm:.4g}",
        f"taxa {figures.learning_rate:.2e}",
        f"janelas {figures.cursor} a {figures.cursor + figures.windows - 1}",
    ]
    if figures.bad_parts:
        which = ", ".join(map(str, figures.bad_parts))
        facts.append(f"micro-lote {which} de {figures.parts}")
    if state.scales:
        history = " -> ".join(f"{scale:g} (passo {step:.0f})" for step, scale in state.scales[-6:])
        facts.append(f"escala {history}")
    half = f"--learning-rate {figures.learning_rate / 2:.1e} --allow-config-change"
    other = ", ou com --precision fp32" if figures.scale is not None else ""
    return SlmError(
        "E_TRAINING_DIVERGED",
        f"{why} ({'; '.join(facts)}); o último checkpoint está intacto.",
        where=run,
        hint=f"Continue do último checkpoint com {half}{other}.",
    )


def unusual_first_loss(loss: float, vocab_size: int) -> Warned | None:
    """A warning where the loss of a new model, which predicts all tokens alike, is far from ln V."""
    expected = math.log(vocab_size)
    if not abs(loss - expected) > 0.1 * expected:  # nor where it is no number, which is told already
        return None
    message = f"a primeira perda, {loss:.2f}, está longe de ln V = {expected:.2f}: confira os dados."
    return Warned(code="first_loss", message=message)


def last_good(steps: Sequence[int], high_step: int) -> int | None:
    """The newest of these checkpoints whose weights gave a normal loss before the spike; None where none did.

    The weights of step k are those that the loss of step k + 1 was measured with.
    """
    return max((step for step in steps if step + 1 < high_step), default=None)
