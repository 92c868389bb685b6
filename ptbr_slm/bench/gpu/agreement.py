"""Sections `amp` and `ranks`: two ways to compute the same small training must give the same losses.

`amp`: fp16 with GradScaler against fp32, step beside step. `ranks`: two cards against one, and their speed.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import torch

from ptbr_slm.bench import t4_rules
from ptbr_slm.bench.gpu.results import Answer, SectionRequest
from ptbr_slm.bench.gpu.training import MEMORY_TOLERANCE, add_result, case_of
from ptbr_slm.bench.synthetic import learnable_data
from ptbr_slm.bench.train import run_case
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.events import Event
from ptbr_slm.faults import maybe_fail
from ptbr_slm.train.config import (
    CheckpointConfig,
    EvaluationConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from ptbr_slm.train.events import Dropped, Step
from ptbr_slm.train.parallel.launch import launch
from ptbr_slm.train.parallel.shards import fill
from ptbr_slm.train.parallel.world import Ranks, join_ranks
from ptbr_slm.train.planning.plan import make_plan
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.train.process import keep_freed_memory
from ptbr_slm.train.reporting.metrics import MetricsLog
from ptbr_slm.train.spec import TextData
from ptbr_slm.train.trainer import Trainer


@dataclass(frozen=True, kw_only=True, slots=True)
class SmallRun:
    """What is trained. Same data, same weights and same order each time."""

    folder: str
    """Holds `data`; the run's own folder is made in it."""
    device: str
    precision: str
    """fp32, or fp16 for autocast with GradScaler; on a CPU too, where only the numbers count."""
    size: str = "mini"
    seq_len: int = 256
    batch_size: int = 8
    grad_accum: int = 2
    steps: int = 60
    learning_rate: float = 1e-3
    leave_out: tuple[int, ...] = ()
    """Steps, from 1, that do not change the weights: those that another run's scaler skipped."""


@dataclass(kw_only=True, slots=True)
class LossCurve:
    """Losses, loss scales and applied steps of a run."""

    losses: list[float | None] = field(default_factory=list)
    """Of each step, in nats; None where it was no number."""
    applied: list[bool] = field(default_factory=list)
    """Whether the step changed the weights."""
    scales: list[float | None] = field(default_factory=list)
    """The loss scale of each step; None without a scaler."""

    @property
    def skipped(self) -> tuple[int, ...]:
        """Steps, from 1, that the scaler skipped."""
        return tuple(number for number, applied in enumerate(self.applied, 1) if not applied)

    def event(self, event: Event) -> None:
        """Listen to the trainer."""
        if isinstance(event, Step | Dropped):
            self.losses.append(event.loss if isinstance(event, Step) else None)
            self.applied.append(not event.skipped)
            self.scales.append(event.scale)

    def progress(self, done: float, status: str) -> None:
        """Not shown."""


def train(run: SmallRun) -> LossCurve:
    """Train on the ranks that this process is one of; every rank answers, and the main one's counts."""
    keep_freed_memory()
    with join_ranks(run.device) as ranks:
        return _train(run, ranks)


def _train(run: SmallRun, ranks: Ranks) -> LossCurve:
    """The trainer is gone when this returns, and the process group outlives it.

    The other way round a rank hung now and then while its last objects were freed (gloo, torch 2.13).
    """
    folder = Path(run.folder)
    rules = t4_rules.apply(ranks.local_rank if ranks.world > 1 else None)
    data = PreparedData.open(folder / "data", verify=False)
    name = f"run-{run.precision}-{ranks.world}"
    config = TrainConfig(
        data=folder / "data",
        output=folder / name,
        model_size=run.size,
        batch_size=run.batch_size,
        grad_accum=run.grad_accum,
        seq_len=run.seq_len,
        precision=run.precision if run.device == "cuda" else "fp32",
        device=run.device,
        max_steps=run.steps,
        optimizer=OptimizerConfig(name="adamw", learning_rate=run.learning_rate),
        schedule=ScheduleConfig(kind="cosine", warmup_steps=min(10, run.steps)),
        evaluation=EvaluationConfig(every=0, sample_tokens=0),
        checkpoint=CheckpointConfig(every=0),
    )
    tokenizer = data.load_tokenizer()
    plan = ranks.from_main(lambda: make_plan(config, tokenizer, ranks.world, memory_limit=rules.memory_limit))
    if plan.device.type == "cuda":
        plan = replace(plan, device=torch.device("cuda", ranks.local_rank))
    curve = LossCurve()
    trainer = Trainer(plan, TextData(data), curve, ranks)
    if plan.device.type == "cpu" and run.precision == "fp16":
        trainer.plan = replace(plan, precision=Precision("fp16", "só para conferir as contas"))
        trainer.scaler = torch.amp.GradScaler("cpu")
    fill(trainer.model, lambda model: model.initialize(0))
    trainer.model.train()
    trainer.parallel.broadcast_weights()
    if ranks.main:
        config.output.mkdir(exist_ok=True)
    with MetricsLog(config.output / "metrics.jsonl", 0, writes=ranks.main) as metrics:
        for step in range(1, run.steps + 1):
            if step in run.leave_out:
                with mock.patch.object(trainer.optimizer, "step", lambda: None):
                    trainer.step_once(metrics)
            else:
                trainer.step_once(metrics)
    return curve


SMOOTHING = 0.9
"""Of the mean that runs along the losses: the two runs' noise is the same, their data being the same."""
AMP_TOLERANCE = 0.005
"""Of the smoothed loss. The fp32 run leaves out the steps that the scaler skipped: otherwise it would be
ahead by that many where the loss falls fast (3 % for two steps of this run)."""
MOST_SKIPPED = 6
"""Steps: from 65,536 down to 1,024. More means that gradients go on overflowing."""
LEAST_LEARNED = 0.15
"""Share by which the loss must fall: two runs that learn nothing agree, and prove nothing."""
SHOWN = 10
"""Steps between the lines of the page."""


def measure_amp(request: SectionRequest, answer: Answer) -> None:
    """Losses side by side, skipped steps, the scale, and the largest difference."""
    with tempfile.TemporaryDirectory() as folder:
        run, vocab_size = SmallRun(folder=folder, device=request.device, precision="fp32"), 2048
        if request.smoke:
            run = replace(run, size="nano", seq_len=32, batch_size=4, grad_accum=1, steps=30)
            run, vocab_size = replace(run, learning_rate=4e-3), 512
        learnable_data(Path(folder) / "data", vocab_size, 1 << 18)
        rate = run.learning_rate / (4 if maybe_fail("bench.amp.rate") else 1)
        half = train(replace(run, precision="fp16", learning_rate=rate))
        compare(train(replace(run, leave_out=half.skipped)), half, answer)


def compare(exact: LossCurve, half: LossCurve, answer: Answer) -> None:
    """Lines and checks of the two runs."""
    both = [
        right if loss is not None else None for right, loss in zip(exact.losses, half.losses, strict=True)
    ]
    smooth, smooth_half = smoothed(both), smoothed(half.losses)
    differences = relative(smooth_half, smooth)
    for step in [1, *range(SHOWN, len(exact.losses) + 1, SHOWN)]:
        at = step - 1
        answer.line(
            f"step {step}",
            step=step,
            fp32=exact.losses[at],
            fp16=half.losses[at],
            smoothed_fp32=smooth[at],
            smoothed_fp16=smooth_half[at],
            difference=differences[at],
            scale=half.scales[at],
        )
    learned = 1 - smooth[-1] / smooth[0] if smooth and smooth[0] else math.nan
    answer.facts["amp"] = {
        "steps": len(half.losses),
        "skipped_steps": list(half.skipped),
        "final_scale": half.scales[-1] if half.scales else None,
        "largest_difference": max(differences, default=None),
        "losses_fp32": exact.losses,
        "losses_fp16": half.losses,
    }
    answer.check(
        "learned", "queda da perda em fp32 (sem ela a comparação não diria nada)", learned, low=LEAST_LEARNED
    )
    answer.check(
        "difference",
        "maior diferença relativa da perda suavizada, fp16 sobre fp32",
        max(differences, default=math.nan),
        high=AMP_TOLERANCE,
    )
    answer.check("skipped", "passos que o GradScaler pulou", float(len(half.skipped)), high=MOST_SKIPPED)
    broken = sum(loss is None for loss, took in zip(half.losses, half.applied, strict=True) if took)
    answer.check("finite", "passos aplicados com perda que não é um número", float(broken), high=0)


def smoothed(losses: Sequence[float | None]) -> list[float]:
    """A mean that runs along the losses and forgets; where a loss is no number the mean stays."""
    values: list[float] = []
    mean = math.nan
    for loss in losses:
        if loss is not None and math.isfinite(loss):
            mean = loss if math.isnan(mean) else SMOOTHING * mean + (1 - SMOOTHING) * loss
        values.append(mean)
    return values


def relative(values: Sequence[float], exact: Sequence[float]) -> list[float]:
    """|value - exact| / exact, one by one."""
    return [abs(value - right) / abs(right) for value, right in zip(values, exact, strict=True)]


RANKS_STEPS = 10
RANKS_TOLERANCE = 0.01
"""Of a step's loss on two cards over that on one: the sums are the same but for their order, in fp16."""
LEAST_SPEED_UP = 1.5
"""Of two cards over one; the planner expects 1.94 (two T4s, 4 GB/s between them, assumed)."""


def measure_ranks(request: SectionRequest, answer: Answer) -> None:
    """Two ranks on two cards; on a CPU, in a smoke run, two gloo processes."""
    if request.device == "cuda" and request.cards < 2:
        reason = "há uma GPU só, e o NCCL aceita um processo por placa: são precisas duas"
        answer.missing("2 ranks", "absent", reason)
        return
    if request.device == "cpu" and not request.smoke:
        answer.missing("2 ranks", "absent", "não há GPU")
        return
    with answer.attempt("loss"):
        _losses(request, answer)
    with answer.attempt("speed"):
        _speed(request, answer)


def _losses(request: SectionRequest, answer: Answer) -> None:
    """Ten steps on one rank and on two, from the same weights and over the same sequences."""
    with tempfile.TemporaryDirectory() as folder:
        precision = "fp16" if request.device == "cuda" else "fp32"
        run = SmallRun(folder=folder, device=request.device, precision=precision, steps=RANKS_STEPS)
        vocab_size = 2048
        if request.smoke:
            run, vocab_size = replace(run, size="nano", seq_len=32, batch_size=2, steps=4), 512
        learnable_data(Path(folder) / "data", vocab_size, 1 << 16)
        # Two first: a process that has used a card may not start others that share its state.
        two = launch(train, (run,), 2)
        if maybe_fail("bench.ranks.rate"):
            run = replace(run, learning_rate=4 * run.learning_rate, grad_accum=1)
        one = train(run)
    difference = largest_difference(one.losses, two.losses)
    answer.line("loss", one_card=one.losses, two_cards=two.losses, difference=difference)
    answer.check(
        "loss", f"maior diferença relativa da perda em {len(one.losses)} passos, duas placas sobre uma",
        difference, high=RANKS_TOLERANCE,
    )  # fmt: skip


def largest_difference(one: Sequence[float | None], two: Sequence[float | None]) -> float:
    """Relative, over the steps; NaN where only one of them has a loss."""
    differences = [
        abs(b - a) / abs(a) if a is not None and b is not None else math.nan
        for a, b in zip(one, two, strict=True)
        if a is not None or b is not None
    ]
    return math.nan if any(math.isnan(value) for value in differences) else max(differences, default=math.nan)


def _speed(request: SectionRequest, answer: Answer) -> None:
    size = "nano" if request.smoke else "85m"
    one = request.facts.get("speed_one_card")
    if one is None:
        single = run_case(case_of(size, request), request.left_s / 2)
        add_result(answer, f"{size}, uma placa", single)
        one = single.tokens_per_second
    both = run_case(case_of(size, request, ranks=2), request.left_s - 1)
    add_result(answer, f"{size}, duas placas", both)
    two = both.tokens_per_second
    gain = two / one if one and two else None
    if request.device == "cpu":
        answer.note("No processador dois processos repartem os mesmos núcleos: o ganho não é julgado.")
        return
    answer.facts["speed_up"] = gain
    answer.check("speed_up", "tokens/s de duas placas sobre os de uma", gain, low=LEAST_SPEED_UP)
    answer.check(
        "memory", "erro da memória calculada de cada placa, com duas", both.memory_error,
        low=-MEMORY_TOLERANCE, high=MEMORY_TOLERANCE,
    )  # fmt: skip
