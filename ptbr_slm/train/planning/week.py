"""A budget of hours, planned session by session before any of it is spent: `ptbr-slm plan`.

What a session loses to installing, saving, measuring and exporting comes off its hours; what is left, over
the seconds of a step, gives the steps, and these the tokens. Learning rate, warm-up, cooldown and intervals
are those that `train` takes by default. No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ptbr_slm.config import DEFAULT_VOCAB_SIZE, ModelConfig, model_config
from ptbr_slm.errors import SlmError
from ptbr_slm.train.config import TOKENS_PER_PARAMETER, TrainConfig, default_tokens_per_step
from ptbr_slm.train.config_file import from_values
from ptbr_slm.train.planning.choice import Request, Setting, choose, does_not_fit, settings
from ptbr_slm.train.planning.hardware import Hardware
from ptbr_slm.train.planning.measured import Measured
from ptbr_slm.train.planning.memory import state_bytes
from ptbr_slm.train.planning.speed import EXCHANGE, exchanged_bytes, update_seconds

SEQ_LEN = {"cuda": 1024, "cpu": 256}
"""Kind of device -> tokens of a sequence, where none are asked for."""
CANDIDATES = {"cuda": ("85m", "160m", "400m"), "cpu": ("nano", "mini", "85m")}
"""Kind of device -> the sizes that are compared."""
SETUP_S, CLOSING_S, TUNE_S = 300, 300, 1800
"""Of a session, assumed: installing and copying the last output; exporting and checking the model; in the
last one tuning on conversations. Of a short session they take no more than the shares below."""
SMALL, TUNE_SHARE = 0.03, 0.1
DISK_BYTES_S, SAMPLES_S = 150e6, 5
"""Assumed: how fast a checkpoint is written and read back for its checksums, and the samples' seconds."""
LAST_SHARE = 0.3
"""A last session shorter than this share of the others is not worth its setup: hours are spread evenly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What is asked for."""

    hours: float
    hardware: Hardware
    session_s: int
    """The longest session."""
    vocab_size: int = DEFAULT_VOCAB_SIZE
    seq_len: int | None = None
    tokens_per_step: int | None = None
    train_tokens: int | None = None
    """Of the prepared data, where there are some."""
    measured: Measured | None = None
    data: Path = Path("dados")
    cooldown_data: Path | None = None
    """Better text for the cooldown."""
    runs: Path = Path("runs")
    """Where the run of a size gets its folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """Seconds of an optimizer step."""

    compute: float
    exchange: float
    """Of gradients between cards."""
    update: float
    measured_over_computed: float | None = None
    """Speed as it was measured over the computed one; None: nothing was measured."""

    @property
    def total(self) -> float:
        """All three, by the measured speed where there is one."""
        return (self.compute + self.exchange + self.update) / (self.measured_over_computed or 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """One session; the steps are those of the run so far."""

    number: int
    seconds: float
    setup_s: float
    train_s: float
    closing_s: float
    tune_s: float
    first_step: int
    last_step: int
    cools: bool
    """Whether the rate falls to zero in it."""

    @property
    def max_time_s(self) -> int:
        """What `--max-time` says: the session's age when training must be over."""
        return int(self.setup_s + self.train_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeekPlan:
    """The plan of one size."""

    budget: Budget
    size: str
    model: ModelConfig
    setting: Setting
    config: TrainConfig
    """What `train` is given, with derived values filled in."""
    step: StepTime
    pause_share: float
    """Of training time that goes to checkpoints and evaluations."""
    sessions: tuple[Session, ...]

    @property
    def tokens(self) -> int:
        """Of the whole training."""
        return self.config.step_tokens * self.config.max_steps

    @property
    def tokens_per_parameter(self) -> float:
        """Tokens over all weights."""
        return self.tokens / self.model.num_parameters

    @property
    def tokens_per_second(self) -> float:
        """Of all devices, while steps are made."""
        return self.config.step_tokens / self.step.total

    @property
    def epochs(self) -> float | None:
        """Times that the data are read; None where there are none yet."""
        return None if self.budget.train_tokens is None else self.tokens / self.budget.train_tokens

    @property
    def checkpoint_bytes(self) -> int:
        """Of one checkpoint: weights and the optimizer's state."""
        return checkpoint_bytes(self.model, self.config.optimizer.name)

    @property
    def cooldown_step(self) -> int:
        """The step from which the rate falls."""
        warmup, share = self.config.schedule.warmup_steps or 0, self.config.schedule.cooldown_fraction
        return round(warmup + (self.config.max_steps - warmup) * (1 - share))


def plan_size(budget: Budget, size: str) -> WeekPlan:
    """The plan for a named size. Raises E_MODEL_SIZE, E_MEMORY where it does not fit, E_USAGE for no time."""
    seq_len = budget.seq_len or SEQ_LEN[budget.hardware.machine.kind]
    model = model_config(size, vocab_size=budget.vocab_size, max_seq_len=seq_len)
    tokens = budget.tokens_per_step or default_tokens_per_step(model.num_parameters, seq_len)
    config = from_values({
        "data": budget.data,
        "cooldown_data": budget.cooldown_data,
        "output": budget.runs / size,
        "model_size": size,
        "seq_len": seq_len,
        "batch_size": "auto",
        "tokens_per_step": tokens,
        "optimizer.name": "muon",
        "schedule.kind": "wsd",
    })  # fmt: skip
    setting = _setting(budget.hardware, model, config, size)
    step = step_time(budget.hardware, model, config, setting)
    if budget.measured is not None:
        ratio = budget.measured.ratio(size, config.step_tokens / step.total)
        step = replace(step, measured_over_computed=ratio)
    lengths = session_lengths(3600 * budget.hours, budget.session_s)
    train_s = [_training(seconds, index == len(lengths) - 1) for index, seconds in enumerate(lengths)]
    share = pause_share(model, config, config.step_tokens / step.total, max(train_s))
    made = [seconds * (1 - share) / step.total for seconds in train_s]
    steps = _rounded(sum(made))
    config = replace(config, max_steps=steps, batch_size=setting.batch_size)
    config = config.with_defaults(model.num_parameters)
    plan = WeekPlan(
        budget=budget, size=size, model=model, setting=setting, config=config, step=step, pause_share=share,
        sessions=(),
    )  # fmt: skip
    return _with_sessions(plan, lengths, train_s, made)


def recommended(plans: Sequence[WeekPlan]) -> WeekPlan:
    """The plan whose tokens per parameter are nearest to `TOKENS_PER_PARAMETER`, as a ratio."""
    return min(plans, key=lambda plan: abs(math.log(plan.tokens_per_parameter / TOKENS_PER_PARAMETER)))


def step_time(hardware: Hardware, model: ModelConfig, config: TrainConfig, setting: Setting) -> StepTime:
    """Of a step, by calculation."""
    machine = hardware.machine
    sent = exchanged_bytes(model.num_parameters, 1, machine.ranks, "ddp") / EXCHANGE
    update = update_seconds(
        model,
        machine.device,
        optimizer=config.optimizer.name,
        precision=hardware.precision,
        ranks=machine.ranks,
    )
    return StepTime(compute=setting.seconds - sent, exchange=sent, update=update)


def pause_share(model: ModelConfig, config: TrainConfig, tokens_per_second: float, longest_s: float) -> float:
    """Share of training time that checkpoints and evaluations take, at their intervals of minutes.

    Evaluation is a forward pass, a third of a step's work. A session shorter than the interval has one of
    each.
    """
    save = checkpoint_bytes(model, config.optimizer.name) / DISK_BYTES_S
    look = config.evaluation.tokens / (3 * tokens_per_second) + SAMPLES_S
    seconds = [min(60 * part.minutes, longest_s) for part in (config.checkpoint, config.evaluation)]
    return min(0.5, save / seconds[0] + look / seconds[1])


def checkpoint_bytes(model: ModelConfig, optimizer: str) -> int:
    """Of one checkpoint."""
    return 4 * model.num_parameters + state_bytes(model, optimizer)


def session_lengths(seconds: float, longest: float) -> list[float]:
    """Full sessions and what is left; spread evenly where that would be too short to be of use."""
    count = max(1, math.ceil(seconds / longest - 1e-9))
    last = seconds - (count - 1) * longest
    if count > 1 and last < LAST_SHARE * longest:
        return [seconds / count] * count
    return [longest] * (count - 1) + [last]


def _training(seconds: float, last: bool) -> float:
    """What of a session is left for training."""
    return seconds - _setup(seconds) - _closing(seconds) - (_tuning(seconds) if last else 0)


def _setup(seconds: float) -> float:
    return min(SETUP_S, SMALL * seconds)


def _closing(seconds: float) -> float:
    return min(CLOSING_S, SMALL * seconds)


def _tuning(seconds: float) -> float:
    return min(TUNE_S, TUNE_SHARE * seconds)


def _setting(hardware: Hardware, model: ModelConfig, config: TrainConfig, size: str) -> Setting:
    request = Request(
        model=model,
        sequences=config.step_sequences,
        seq_len=config.seq_len,
        precision=hardware.precision,
        optimizer=config.optimizer.name,
    )
    chosen = choose(request, hardware.machine)
    if chosen is None:
        least = min(settings(request, hardware.machine), key=lambda setting: setting.memory.total)
        raise does_not_fit(request, hardware.machine, size, least)
    return chosen


def _rounded(steps: float) -> int:
    """Down to three digits: the calculation is no finer. Raises E_USAGE for less than ten."""
    if steps < 10:
        raise SlmError(
            "E_USAGE",
            "nestas horas não cabem dez passos deste tamanho.",
            where="--hours",
            hint="Dê mais horas, ou escolha um tamanho menor em --model-size.",
        )
    unit = int(10 ** max(0, math.floor(math.log10(steps)) - 2))
    return int(steps // unit) * unit


def _with_sessions(
    plan: WeekPlan, lengths: Sequence[float], train_s: Sequence[float], made: Sequence[float]
) -> WeekPlan:
    """The same with its sessions; steps are shared out by the time that each has for them."""
    total, done, sessions = sum(made), 0.0, []
    for index, (seconds, training) in enumerate(zip(lengths, train_s, strict=True)):
        last = index == len(lengths) - 1
        first = round(plan.config.max_steps * done / total)
        done += made[index]
        end = round(plan.config.max_steps * done / total)
        sessions.append(
            Session(
                number=index + 1,
                seconds=seconds,
                setup_s=_setup(seconds),
                train_s=training,
                closing_s=_closing(seconds),
                tune_s=_tuning(seconds) if last else 0.0,
                first_step=first,
                last_step=end,
                cools=end > plan.cooldown_step,
            )
        )
    return replace(plan, sessions=tuple(sessions))
