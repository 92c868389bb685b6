"""A small training whose losses are kept: what two ways to compute the same are compared by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from ptbr_slm.bench import t4_rules
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.train.allocator import keep_freed_memory
from ptbr_slm.train.config import (
    CheckpointConfig,
    EvaluationConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from ptbr_slm.train.loop import Trainer
from ptbr_slm.train.parallel.shards import fill
from ptbr_slm.train.parallel.world import Ranks, join_ranks
from ptbr_slm.train.planning.plan import make_plan
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.train.reporting.metrics import MetricsLog


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
class Course:
    """How it went."""

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

    def event(self, record: Mapping[str, Any]) -> None:
        """Listen to the trainer."""
        if record["event"] in ("step", "dropped"):
            self.losses.append(record.get("loss"))
            self.applied.append(not record.get("skipped", False))
            self.scales.append(record.get("scale"))

    def progress(self, done: float, status: str) -> None:
        """Nobody watches."""


def train(run: SmallRun) -> Course:
    """Train on the ranks that this process is one of; every rank answers, and the main one's counts."""
    keep_freed_memory()
    with join_ranks(run.device) as ranks:
        return _course(run, ranks)


def _course(run: SmallRun, ranks: Ranks) -> Course:
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
        optimizer=OptimizerConfig(learning_rate=run.learning_rate),
        schedule=ScheduleConfig(warmup_steps=min(10, run.steps)),
        evaluation=EvaluationConfig(every=0, sample_tokens=0),
        checkpoint=CheckpointConfig(every=0),
    )
    tokenizer = data.load_tokenizer()
    plan = ranks.from_main(lambda: make_plan(config, tokenizer, ranks.world, memory_limit=rules.memory_limit))
    if plan.device.type == "cuda":
        plan = replace(plan, device=torch.device("cuda", ranks.local_rank))
    course = Course()
    trainer = Trainer(plan, data, tokenizer, course, ranks)
    if plan.device.type == "cpu" and run.precision == "fp16":
        trainer.plan = replace(plan, precision=Precision("fp16", "só para conferir as contas"))
        trainer.scaler = torch.amp.GradScaler("cpu")
    fill(trainer.model, lambda model: model.initialize(0))
    trainer.model.train()
    trainer.parallel.agree_on_weights()
    if ranks.main:
        config.output.mkdir(exist_ok=True)
    with MetricsLog(config.output / "metrics.jsonl", 0, writes=ranks.main) as metrics:
        for step in range(1, run.steps + 1):
            if step in run.leave_out:
                with mock.patch.object(trainer.optimizer, "step", lambda: None):
                    trainer.step_once(metrics)
            else:
                trainer.step_once(metrics)
    return course
