"""The trainer: the state of a run, and its operations: a step, an evaluation, a checkpoint, a rollback.

`ptbr_slm.train.loop` calls them. `ptbr_slm.train.survival` decides what follows from a bad step or an out of
memory; only the trainer changes the run.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ptbr_slm.eval.bits import HeldOut
from ptbr_slm.model import Llama
from ptbr_slm.train.batches import MicroBatch, remaining_windows
from ptbr_slm.train.checkpoint.files import (
    checkpoint_bytes,
    list_checkpoints,
    read_state,
    restore,
    step_of,
    write_checkpoint,
)
from ptbr_slm.train.config_file import to_values
from ptbr_slm.train.evaluate import TaskScorer, score_tasks, write_sample
from ptbr_slm.train.events import Dropped, Evaluated, Listener, Sampled, Saved, Step, TasksScored
from ptbr_slm.train.optim import build_optimizer, set_learning_rate, set_momentum
from ptbr_slm.train.parallel.parallelize import parallelize
from ptbr_slm.train.parallel.shards import gather
from ptbr_slm.train.parallel.world import SINGLE_PROCESS, Ranks
from ptbr_slm.train.planning.plan import Plan
from ptbr_slm.train.planning.speed import throughput
from ptbr_slm.train.reporting.meters import Meters
from ptbr_slm.train.reporting.metrics import MetricsLog
from ptbr_slm.train.reporting.status import Pace, Status
from ptbr_slm.train.run_folder import CHECKPOINTS
from ptbr_slm.train.schedule import in_cooldown, lr_factor, momentum_at
from ptbr_slm.train.session import Deadline
from ptbr_slm.train.spec import TrainingData, TrainSpec, data_streams
from ptbr_slm.train.state import TrainState, first_data
from ptbr_slm.train.step import (
    OutOfMemory,
    OutOfMemoryAmongOthers,
    StepResult,
    all_finite,
    is_out_of_memory,
    optimizer_step,
)
from ptbr_slm.train.survival import guards, rollback
from ptbr_slm.train.survival import out_of_memory as memory


class Trainer:
    """Model, optimizer, data and state of a run."""

    def __init__(
        self,
        plan: Plan,
        data: TrainingData,
        listener: Listener,
        ranks: Ranks = SINGLE_PROCESS,
        task_scorer: TaskScorer | None = None,
        spec: TrainSpec | None = None,
    ) -> None:
        self.plan, self.config, self.listener, self.tokenizer = plan, plan.config, listener, data.tokenizer
        self.data, self.ranks, self.task_scorer = data, ranks, task_scorer
        self.spec = spec or TrainSpec()
        self.batch_size = self.config.batch_size
        """Sequences of the micro-batch in use; below config.batch_size after an out of memory."""
        self.companions: dict[str, bytes] = {}
        """Files of the model that the run began from, for every model folder it writes."""
        self.batches = data_streams(data, self.config)
        self.held_out, self.held_out_text = data.held_out(self.config), data.held_out_text(self.config)
        # Before the model takes its memory; the other ranks' cards are taken to be like the main one's.
        self.throughput = throughput(
            plan.model,
            self.config.seq_len,
            plan.device,
            plan.precision,
            ranks.world,
            measure=ranks.main,
            adapters=plan.request.adapters,
        )
        self.model = Llama(plan.model)
        self.spec.prepare_model(self.model, plan, data)
        self.model.checkpoint_every = plan.checkpoint_every
        self.model.loss, self.model.z_loss = plan.loss, self.config.z_loss
        self.parallel = parallelize(self.model, plan.device, ranks, self.config.parallel)
        self.optimizer = build_optimizer(self.model, self.config.optimizer, ranks, plan.precision.name)
        self.scaler = torch.amp.GradScaler(plan.device.type) if plan.precision.needs_scaler else None
        self.state = TrainState(
            config=to_values(self.config),
            model=plan.model.to_hf(),
            data=first_data(data.sha256),
            tokenizer_sha256=data.tokenizer.sha256,
        )
        self.guards = guards.Guards(self.config.guard, run=str(self.config.output))
        self.pace = Pace()
        self.deadline: Deadline | None = None
        """The session's, once training has begun."""
        self.rate_factor = 1.0
        """Of the schedule's learning rate; below 1 in a cooldown at a session's end."""
        self.in_branch = False
        """Whether the steps are those of a cooldown branch: no checkpoint is written."""
        self.save_s = checkpoint_bytes(plan.model.num_parameters) / 200e6  # until one was measured
        self._checkpoints = self.config.output / CHECKPOINTS
        self._meters = Meters(plan.device, ranks.world)
        self._evaluation_s: float | None = None
        self._last_figures: guards.StepFigures | None = None
        self._scored: TasksScored | None = None
        self._elapsed_before, self._began = 0.0, time.monotonic()
        self._main_elapsed_s: float | None = None

    # The run's state.

    def load(self, checkpoint: Path, state: TrainState) -> None:
        """Load weights, optimizer, random state and counters of this checkpoint, whose state this is."""
        restore(checkpoint, self.model, self.optimizer)
        self.state.go_on_from(state)
        self.guards = guards.Guards(self.config.guard, guards.GuardState(**state.guard), run=self.guards.run)
        if self.scaler is not None and state.scaler is not None:
            self.scaler.load_state_dict(state.scaler)

    def resume(self, checkpoint: Path, state: TrainState) -> None:
        """Continue another session's run from this checkpoint."""
        self.load(checkpoint, state)
        self._elapsed_before = state.elapsed_s

    def begin(self, deadline: Deadline) -> None:
        """Start the clock of this session, and give every rank the main one's weights."""
        self._began, self.deadline = time.monotonic(), deadline
        deadline.began_s = deadline.age()
        self.model.train()
        self.parallel.broadcast_weights()

    def begin_branch(self) -> None:
        """Start a cooldown branch: no checkpoints and no rollbacks from here on."""
        self.in_branch = True
        settings = replace(self.config.guard, spike_sigmas=0.0)
        self.guards = guards.Guards(settings, self.guards.state, run=self.guards.run)

    @property
    def evaluation_s(self) -> float:
        """Seconds that an evaluation takes: the last one, or a guess from the pace of training."""
        if self._evaluation_s is not None:
            return self._evaluation_s
        tokens = sum(text.inputs.size for text in (self.held_out, self.held_out_text) if text is not None)
        return tokens / (3 * self.pace.tokens_per_second) if self.pace.tokens_per_second else 0.0

    @property
    def elapsed_s(self) -> float:
        """Seconds of training over all sessions; with several ranks, the main one's, as last shared."""
        if self._main_elapsed_s is not None:
            return self._main_elapsed_s
        return self._elapsed_before + time.monotonic() - self._began

    def share_clock(self, own: float) -> list[float]:
        """Take the main rank's clock; every rank's `own` number, in the order of the ranks."""
        if self.ranks.world == 1:
            return [own]
        self._main_elapsed_s = None
        shared = self.ranks.exchange([self.elapsed_s, own])
        self._main_elapsed_s = shared[0][0]
        return [numbers[1] for numbers in shared]

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        by_steps = self.state.step / self.config.max_steps
        minutes = self.config.schedule.minutes
        return min(1.0, max(by_steps, self.elapsed_s / (60 * minutes)) if minutes else by_steps)

    # A step.

    def step_once(self, metrics: MetricsLog) -> None:
        """The next optimizer step; a loss spike leads to a rollback.

        Raises E_TRAINING_DIVERGED, E_MEMORY, and OutOfMemoryAmongOthers, after which only a restart helps.
        """
        state, rate = self.state, self._learning_rate()
        set_learning_rate(self.optimizer, rate)
        set_momentum(self.optimizer, momentum_at(self.config.optimizer, state.step))
        if (changed := self.batches.begin_step(state, cooling=self.cooling)) is not None:
            self.listener.event(changed)
        windows, cursor = remaining_windows(state.cursor, self.config.step_sequences, state.skipped_windows)
        started = time.monotonic()
        result = self._attempt(windows)
        self.pace.add(result.target_tokens, time.monotonic() - started)
        figures = self._last_figures = guards.StepFigures(
            step=state.step + 1,
            cursor=state.cursor,
            windows=cursor - state.cursor,
            loss=result.loss,
            grad_norm=result.grad_norm,
            learning_rate=rate,
            applied=result.applied,
            scale=result.scale,
            bad_parts=result.bad_parts,
            parts=result.parts,
        )
        verdict = self.guards.judge(figures)
        state.step += 1
        state.cursor = cursor
        state.tokens += result.target_tokens
        state.skipped_steps += not result.applied
        self._record(metrics, result, rate)
        if verdict == "spike":
            self._roll_back(metrics, figures)

    @property
    def cooling(self) -> bool:
        """Whether the next step is one of a cooldown, planned or at a session's end."""
        planned = in_cooldown(self.config.schedule, self.state.step, self.config.max_steps, self.elapsed_s)
        return planned or self.in_branch

    def _learning_rate(self) -> float:
        """Of the next step."""
        peak = self.config.optimizer.learning_rate
        assert peak is not None
        factor = lr_factor(self.config.schedule, self.state.step, self.config.max_steps, self.elapsed_s)
        return peak * factor * self.rate_factor

    def next_micro_batch(self) -> MicroBatch:
        """The first one of the next step."""
        cursor = self.state.cursor
        return self.batches.sequences([range(cursor, cursor + self.batch_size)])

    def _micro_batches(self, windows: list[range]) -> list[MicroBatch]:
        """This rank's share of these windows."""
        return self.batches.sequences(windows, self.ranks.share(sum(map(len, windows)))).split(
            self.batch_size
        )

    def _attempt(self, windows: list[range]) -> StepResult:
        """One step over these windows; where the memory runs out, again with smaller micro-batches."""
        random, versions = memory.random_states(self.plan.device), memory.weight_versions(self.model)
        while True:
            reported, rejoined = "", self.ranks.world == 1
            try:
                return optimizer_step(
                    self.model,
                    self.optimizer,
                    self._micro_batches(windows),
                    precision=self.plan.precision,
                    scaler=self.scaler,
                    gradient_clip=self.config.optimizer.gradient_clip,
                    parallel=self.parallel,
                    ranks=self.ranks,
                )
            except OutOfMemory as error:
                reported, rejoined = str(error), not isinstance(error, OutOfMemoryAmongOthers)
            except (RuntimeError, MemoryError) as error:
                if not (isinstance(error, MemoryError) or is_out_of_memory(error)):
                    raise
                reported = str(error)
            # Outside the except blocks, whose tracebacks would keep every tensor of the partial step alive.
            if versions != memory.weight_versions(self.model):
                rejoined = False  # half of the weights are updated already: only a checkpoint is whole
            self._make_smaller(reported, rejoined)
            memory.restore_random(random, self.plan.device)

    def _make_smaller(self, reported: str, rejoined: bool) -> None:
        """Go on with a smaller micro-batch, as `survival.out_of_memory.smaller` decides, or raise."""
        self.optimizer.zero_grad(set_to_none=True)
        memory.free(self.plan.device)
        before, ranks = self.batch_size, self.ranks
        decided = memory.smaller(self.plan, before, reported, rejoined=rejoined, world=ranks.world)
        if not rejoined:
            memory.remember(self.plan, decided.batch_size)
        elif decided.error is not None:
            ranks.from_main(lambda: memory.forget(self.plan))
        elif ranks.main:
            memory.remember(self.plan, decided.batch_size)
        if decided.error is not None:
            raise decided.error
        self.batch_size = decided.batch_size
        if self.scaler is not None:  # it may wait for an update that never came
            self.scaler = memory.same_scaler(self.scaler, self.plan.device)
        self.listener.event(memory.retried(self.state.step + 1, before, self.batch_size, reported))

    def _record(self, metrics: MetricsLog, result: StepResult, rate: float) -> None:
        known = math.isfinite(result.loss)
        numbers: dict[str, Any] = {
            "step": self.state.step,
            "learning_rate": rate,
            "grad_norm": result.grad_norm if math.isfinite(result.grad_norm) else None,
            "tokens": self.state.tokens,
            "tokens_per_second": round(self.pace.tokens_per_second, 1),
            **self.throughput.of(self.pace.tokens_per_second),
            **self._meters.record(),
            "elapsed_s": round(self.elapsed_s, 3),
            "scale": result.scale,
            "skipped": None if result.applied else True,
            "bad_micro_batches": None if result.applied else result.bad_parts,
        }
        event = Step(loss=result.loss, **numbers) if known else Dropped(**numbers)
        metrics.tell(self.listener, event)
        if known:
            self.listener.progress(self.progress, self._status(result.loss).line())
        if self.state.step == 1 and self.config.init_from is None and self.config.distill.logits is None:
            warning = guards.unusual_first_loss(result.loss, self.plan.model.vocab_size)
            if warning is not None:
                self.listener.event(warning)

    def _status(self, loss: float) -> Status:
        state, deadline, minutes = self.state, self.deadline, self.config.schedule.minutes
        by_steps = (self.config.max_steps - state.step) * self.pace.step_s
        session = None if deadline is None else deadline.left(self.save_s, self.evaluation_s)
        return Status(
            step=state.step,
            max_steps=None if minutes else self.config.max_steps,
            loss=loss,
            tokens_per_second=self.pace.tokens_per_second,
            run_left_s=60 * minutes - self.elapsed_s if minutes else by_steps,
            session_left_s=session,
            gpu_memory_bytes=self._meters.memory_bytes() if self.plan.device.type == "cuda" else None,
            scale=None if self._last_figures is None else self._last_figures.scale,
            skipped_steps=state.skipped_steps,
        )

    def _roll_back(self, metrics: MetricsLog, figures: guards.StepFigures) -> None:
        """Go back to the last good checkpoint, as `survival.rollback.decide` says.

        Where no checkpoint was written before the spike, the run goes on and a warning says so.
        """
        guard, since = self.guards.state, self.guards.state.high_step
        checkpoint = self.ranks.from_main(
            lambda: rollback.newest_good(self._checkpoints, since, self.listener)
        )
        if checkpoint is None:
            self.guards.accept_level()
            self.listener.event(rollback.no_checkpoint(since))
            return
        old = read_state(checkpoint, hashes=False)  # checked by the main rank
        limit, run = self.config.guard.max_rollbacks, self.guards.run
        decided = rollback.decide(checkpoint, old, self.state, guard, figures, max_rollbacks=limit, run=run)
        self.load(decided.checkpoint, decided.state)
        self.ranks.from_main(lambda: rollback.remove_later(self._checkpoints, self.state.step))
        self.save(replace=True)
        metrics.rewind(self.state.step)
        metrics.tell(self.listener, decided.event)

    # Evaluation and samples.

    def observe(self, metrics: MetricsLog) -> None:
        """Evaluate (all ranks), score tasks and write samples (the main one), once a step.

        Raises E_MEMORY, OutOfMemoryAmongOthers.
        """
        step, settings, started = self.state.step, self.config.evaluation, time.monotonic()
        if self.held_out is not None and not self.ranks.from_main(lambda: metrics.has(Evaluated, step)):
            before = self.held_out_text
            evaluated = Evaluated(
                step=step,
                bits_per_byte=self._bits_per_byte(self.held_out),
                text_bits_per_byte=None if before is None else self._bits_per_byte(before),
            )
            metrics.tell(self.listener, evaluated)
        if self.task_scorer is not None and not self.ranks.from_main(lambda: metrics.has(TasksScored, step)):
            self._score_tasks(self.task_scorer, metrics)
        if settings.sample_tokens and not self.ranks.from_main(lambda: metrics.has(Sampled, step)):
            model = gather(self.model, self.ranks)
            for prompt in settings.prompts if self.ranks.main else ():
                ids = self.data.prompt_ids(prompt)
                text = write_sample(model, self.tokenizer, ids, settings.sample_tokens, self.config.seed)
                sampled = Sampled(step=step, prompt=prompt, text=text)
                metrics.tell(self.listener, sampled)
        self.watch(metrics)
        if metrics.has(Evaluated, step):
            self._evaluation_s = max(time.monotonic() - started, self._evaluation_s or 0.0)

    def watch(self, metrics: MetricsLog) -> None:
        """Measure what the spec watches (all ranks), once a step. Raises what `TrainSpec.check` does."""
        kind, step = self.spec.watched, self.state.step
        if kind is None or self.ranks.from_main(lambda: metrics.has(kind, step)):
            return
        event = self.spec.watch(self.parallel, self.plan, self.data, step, self.batch_size, self.ranks)
        if event is not None:
            metrics.tell(self.listener, event)
            self.spec.check(event, self.plan)

    def held_out_bits(self) -> float | None:
        """Bits per byte of the weights as they are, None without a held-out part. All ranks call it."""
        return None if self.held_out is None else self._bits_per_byte(self.held_out)

    def _bits_per_byte(self, text: HeldOut) -> float:
        """All ranks call it."""
        return memory.evaluate(self.plan, self.parallel, text, self.batch_size, self.ranks)

    def _score_tasks(self, scorer: TaskScorer, metrics: MetricsLog) -> None:
        """All ranks call it; the main one asks, and the others wait. What cannot be scored is left out."""
        model, step = gather(self.model, self.ranks), self.state.step
        before = self._scored or metrics.last(TasksScored)
        found = self.ranks.from_main(lambda: score_tasks(scorer, model, self.tokenizer, step, before))
        if isinstance(found, TasksScored):
            self._scored = found
            metrics.write(found)
        else:
            self.task_scorer = None
            memory.free(self.plan.device)
        self.listener.event(found)

    # Checkpoints.

    def save(self, *, replace: bool = False) -> Path:
        """Write a checkpoint of this step; all ranks wait for it. replace: even where one of it exists.

        Raises E_TRAINING_DIVERGED where a weight is not finite, E_DISK_FULL, E_PERMISSION or E_IO.
        """
        assert not self.in_branch
        self._refuse_broken_weights()
        started = time.monotonic()
        self.state.guard = asdict(self.guards.state)
        self.state.elapsed_s = self.elapsed_s
        self.state.scaler = self.scaler.state_dict() if self.scaler is not None else None
        path = write_checkpoint(
            self._checkpoints,
            self.model,
            self.optimizer,
            self.tokenizer,
            self.state,
            keep=self.config.checkpoint.keep,
            companions=self.companions,
            protected=self._protected(),
            replace=replace,
            ranks=self.ranks,
        )
        self.save_s = time.monotonic() - started
        self.listener.event(Saved(step=self.state.step, path=str(path), seconds=round(self.save_s, 3)))
        return path

    def _refuse_broken_weights(self) -> None:
        """Raise E_TRAINING_DIVERGED where a weight is not finite, so that no such checkpoint is written."""
        if self._last_figures is not None and self.ranks.any(not all_finite(self.model)):
            why = "há pesos que deixaram de ser números, e por isso nada foi salvo"
            raise guards.diverged(why, self._last_figures, self.guards.state, self.guards.run)

    def _protected(self) -> list[str]:
        """The checkpoint that a rollback would load, where the loss is high now."""
        if not self.guards.state.high:
            return []
        names = {step_of(path): path.name for path in list_checkpoints(self._checkpoints)}
        step = guards.last_good(list(names), self.guards.state.high_step)
        return [] if step is None else [names[step]]
