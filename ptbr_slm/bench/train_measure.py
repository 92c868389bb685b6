"""Measures one case of `bench train`, in a process of its own.

`python -m ptbr_slm.bench.train_measure CASE.json RESULT.json`
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from ptbr_slm.bench import t4_rules
from ptbr_slm.bench.synthetic import random_data
from ptbr_slm.bench.train import Case, Result
from ptbr_slm.config import DEFAULT_VOCAB_SIZE
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.errors import Exit, SlmError
from ptbr_slm.events import Event
from ptbr_slm.system import peak_rss
from ptbr_slm.train.config import AUTO, CheckpointConfig, EvaluationConfig, OptimizerConfig, TrainConfig
from ptbr_slm.train.events import Step, Warned
from ptbr_slm.train.loop import compile_layers_of
from ptbr_slm.train.parallel.environment import restarts
from ptbr_slm.train.parallel.launch import launch
from ptbr_slm.train.parallel.shards import fill
from ptbr_slm.train.parallel.world import Ranks, join_ranks
from ptbr_slm.train.planning.choice import policy_name
from ptbr_slm.train.planning.plan import Plan, make_plan
from ptbr_slm.train.process import keep_freed_memory
from ptbr_slm.train.reporting.metrics import MetricsLog
from ptbr_slm.train.run_folder import MICRO_BATCH
from ptbr_slm.train.spec import TextData
from ptbr_slm.train.step import OutOfMemory, is_out_of_memory
from ptbr_slm.train.trainer import Trainer

FEW, MANY = 1, 4
"""Micro-batches of the two kinds of step that are timed: their difference is micro-batches alone."""
WARM_UP = 2
LEAST, MOST = 2, 12
"""Steps of each kind."""


def main() -> None:
    """Measure the case of the first file, write the result into the second."""
    case = Case(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    with tempfile.TemporaryDirectory(prefix="ptbr-slm-bench-") as folder:
        result = measure(case, Path(folder))
    Path(sys.argv[2]).write_text(json.dumps(result.to_json()), encoding="utf-8")


def measure(case: Case, folder: Path) -> Result:
    """The figures of a case, or why there are none."""
    random_data(folder / "data", DEFAULT_VOCAB_SIZE)
    try:
        if case.ranks > 1:
            return launch(on_rank, (case, folder), case.ranks)
        return on_rank(case, folder)
    except SlmError as error:
        oom = error.exit_code == Exit.RESOURCE
        return Result(case=case, status="oom" if oom else "error", reason=f"{error.code}: {error.message}")
    except (RuntimeError, MemoryError, ImportError) as error:
        first = (str(error).splitlines() or [""])[0][:160]
        return Result(case=case, status="error", reason=f"{type(error).__name__}: {first}")


def on_rank(case: Case, folder: Path) -> Result:
    """What one rank does; the main one's result counts."""
    keep_freed_memory()
    data = PreparedData.open(folder / "data", verify=False)
    with join_ranks(case.device) as ranks:
        rules = t4_rules.apply(ranks.local_rank if ranks.world > 1 else None) if case.t4_rules else None
        config = config_of(case, folder, rules)
        limit = None if rules is None else rules.memory_limit
        plan = ranks.from_main(
            lambda: make_plan(config, data.load_tokenizer(), ranks.world, memory_limit=limit)
        )
        if plan.device.type == "cuda":
            plan = replace(plan, device=torch.device("cuda", ranks.local_rank))
        if restarts():
            return _restarted(case, plan, folder)
        try:
            return Measurement(case, plan, data, ranks, folder).result()
        except (RuntimeError, OutOfMemory, MemoryError) as error:
            if not isinstance(error, OutOfMemory | MemoryError) and not is_out_of_memory(error):
                raise
            return _planned(case, plan, "oom", "a memória acabou")


def _restarted(case: Case, plan: Plan, folder: Path) -> Result:
    """The agent has started all ranks again: a measurement would be of something else."""
    if (folder / "run" / MICRO_BATCH).exists():
        return _planned(case, plan, "oom", "a memória acabou num dos processos")
    return _planned(case, plan, "error", "um dos processos morreu")


def config_of(case: Case, folder: Path, rules: t4_rules.Rules | None = None) -> TrainConfig:
    """The training that a case is, with the data in `folder`/data; nothing of it is evaluated or saved."""
    return TrainConfig(
        data=folder / "data",
        output=folder / "run",
        model_size=case.size,
        batch_size=case.batch_size or AUTO,
        seq_len=case.seq_len,
        checkpointing=case.checkpointing,
        loss=case.loss,
        compile=case.compile,
        parallel=case.parallel,
        device=case.device,
        precision="auto" if rules is None else rules.precision,
        max_steps=1_000_000,
        optimizer=OptimizerConfig(name=case.optimizer),
        evaluation=EvaluationConfig(every=0, sample_tokens=0),
        checkpoint=CheckpointConfig(every=0),
        tokens_per_step=case.batch_size * case.seq_len * MANY if case.batch_size else None,
    )


class Measurement:
    """The trainer of a plan, and its steps timed from outside."""

    def __init__(self, case: Case, plan: Plan, data: PreparedData, ranks: Ranks, folder: Path) -> None:
        self.case, self.plan, self.ranks, self.folder = case, plan, ranks, folder
        self.before = peak_rss()
        self.first_loss: float | None = None
        self.warning = ""
        self.trainer = Trainer(plan, TextData(data), self, ranks)
        if plan.device.type == "cuda":  # the product that was timed before took memory, too
            torch.cuda.reset_peak_memory_stats(plan.device)
        fill(self.trainer.model, lambda model: model.initialize(0))
        self.trainer.model.train()
        self.trainer.parallel.broadcast_weights()
        if case.compile:
            self._compile()

    def _compile(self) -> None:
        """Compile the layers as `train --compile` does. Raises RuntimeError where it would go on without."""
        if not compile_layers_of(self.trainer):
            raise RuntimeError(self.warning)

    def event(self, event: Event) -> None:
        """Listen to the trainer: the first loss tells whether this is a training at all."""
        match event:
            case Step(loss=loss) if self.first_loss is None:
                self.first_loss = loss
            case Warned(message=message):
                self.warning = message

    def progress(self, done: float, status: str) -> None:
        """Not shown."""

    def result(self) -> Result:
        """Warm up, time the two kinds of step, and put the figures together."""
        self.folder.joinpath("run").mkdir(exist_ok=True)
        with MetricsLog(self.folder / "run" / "metrics.jsonl", 0, writes=self.ranks.main) as metrics:
            warm = self.steps(metrics, FEW, WARM_UP)[-1]
            few = self.steps(metrics, FEW, self._count(warm, 0.25))
            many = self.steps(metrics, MANY, self._count(warm * MANY, 0.75))
        micro = (statistics.median(many) - statistics.median(few)) / (MANY - FEW)
        if micro <= 0:  # noise of a busy machine on a step of milliseconds
            micro = statistics.median(many) / MANY
        update = max(0.0, statistics.median(few) - FEW * micro)
        return self._figures(micro, update, WARM_UP + len(few) + len(many))

    def _count(self, step_s: float, share: float) -> int:
        """Steps that fit into this share of the case's time; the same on every rank."""
        count = max(LEAST, min(MOST, int(share * self.case.seconds / max(step_s, 1e-6))))
        return int(self.ranks.exchange([count])[0][0]) if self.ranks.world > 1 else count

    def steps(self, metrics: MetricsLog, accum: int, count: int) -> list[float]:
        """Seconds of `count` optimizer steps of `accum` micro-batches on every rank. Raises OutOfMemory."""
        rows = self.plan.config.batch_size
        self.trainer.config = replace(
            self.plan.config, grad_accum=accum * self.ranks.world, tokens_per_step=None
        )
        seconds = []
        for _ in range(count):
            _wait(self.plan.device)
            began = time.perf_counter()
            self.trainer.step_once(metrics)
            _wait(self.plan.device)
            seconds.append(time.perf_counter() - began)
            if self.trainer.batch_size < rows:
                raise OutOfMemory
        return seconds

    def _figures(self, micro: float, update: float, steps: int) -> Result:
        plan, config = self.plan, self.plan.config
        accum = max(1, config.grad_accum // self.ranks.world)
        rows = min(config.batch_size, -(-config.step_sequences // self.ranks.world))
        tokens = accum * rows * config.seq_len * self.ranks.world
        speed = tokens / (accum * micro + update)
        share = self.trainer.throughput.of(speed)
        peak, reserved = _memory(plan.device, self.before)
        return replace(
            _planned(self.case, plan, "ok", ""),
            grad_accum=accum,
            micro_batch_s=micro,
            update_s=update,
            tokens_per_second=speed,
            mfu=share.get("mfu"),
            mfu_gemm=share.get("mfu_gemm"),
            gemm_flops=self.trainer.throughput.gemm,
            peak_bytes=peak,
            reserved_bytes=reserved,
            skipped_steps=self.trainer.state.skipped_steps,
            first_loss=self.first_loss,
            steps=steps,
        )


def _planned(case: Case, plan: Plan, status: str, reason: str) -> Result:
    """A result with what the plan says and nothing measured."""
    predicted = next(
        option.tokens_per_second
        for option in plan.options
        if (option.checkpoint_every, option.loss) == (plan.checkpoint_every, plan.loss)
    )
    return Result(
        case=case,
        status=status,
        reason=reason,
        batch_size=plan.config.batch_size,
        checkpointing=policy_name(plan.checkpoint_every),
        loss=plan.loss,
        precision=plan.precision.name,
        parameters=plan.model.num_parameters,
        predicted_bytes=plan.memory.total - plan.memory.context,
        predicted_tokens_per_second=predicted,
    )


def _memory(device: torch.device, before: int | None) -> tuple[int | None, int | None]:
    """(peak, reserved) bytes of this process since its model was made."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
    now = peak_rss()
    return (None if now is None or before is None else now - before), None


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
