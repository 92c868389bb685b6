"""The training loop: step, look, save, until the last step or a reason to stop."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.eval.bits import held_out_windows
from ptbr_slm.model import Llama
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.config_file import to_values
from ptbr_slm.train.events import Listener
from ptbr_slm.train.optim import build_optimizer, set_learning_rate
from ptbr_slm.train.order import WindowOrder
from ptbr_slm.train.parallel.parallelize import parallelize
from ptbr_slm.train.parallel.shards import gather
from ptbr_slm.train.parallel.world import ALONE, Ranks
from ptbr_slm.train.planning.plan import Plan
from ptbr_slm.train.planning.speed import throughput
from ptbr_slm.train.reporting.gauges import Gauges
from ptbr_slm.train.reporting.metrics import MetricsLog
from ptbr_slm.train.reporting.samples import write_sample
from ptbr_slm.train.reporting.status import Pace, status_line
from ptbr_slm.train.saving.checkpoint import (
    TrainState,
    checkpoint_bytes,
    list_checkpoints,
    restore,
    write_checkpoint,
)
from ptbr_slm.train.schedule import lr_factor
from ptbr_slm.train.step import StepResult, all_finite
from ptbr_slm.train.survival.cooldown import Branch, cool_down, time_to_cool
from ptbr_slm.train.survival.guards import Guards, GuardState, Observed, diverged, last_good, take
from ptbr_slm.train.survival.retry import attempt, evaluate
from ptbr_slm.train.survival.rollback import go_back, tell_again
from ptbr_slm.train.survival.session import Deadline
from ptbr_slm.train.survival.stop import SignalGuard, StopReason, most_urgent, urgency


class Trainer:
    """A run in progress."""

    def __init__(
        self,
        plan: Plan,
        data: PreparedData,
        tokenizer: Tokenizer,
        listener: Listener,
        ranks: Ranks = ALONE,
    ) -> None:
        self.plan, self.config, self.listener, self.tokenizer = plan, plan.config, listener, tokenizer
        self.ranks = ranks
        self.rows = self.config.batch_size
        """Sequences of the micro-batch in use; below batch_size after an out of memory."""
        self.companions: dict[str, bytes] = {}
        """Files of the model that the run began from, for every model folder it writes."""
        self.train_split = data.split("train")
        self.order = WindowOrder(self.train_split.tokens, self.config.seq_len, self.config.seed)
        self.held_out = held_out_windows(
            data.split("valid"),
            tokenizer,
            self.config.seq_len,
            self.config.evaluation.tokens,
            data_sha256=data.sha256,
        )
        # Before the model takes its memory; the other ranks' cards are taken to be like the main one's.
        self.throughput = throughput(
            plan.model, self.config.seq_len, plan.device, plan.precision, ranks.world, measure=ranks.main
        )
        self.model = Llama(plan.model)
        self.model.checkpoint_every = plan.checkpoint_every
        self.model.loss, self.model.z_loss = plan.loss, self.config.z_loss
        self.parallel = parallelize(self.model, plan.device, ranks, self.config.parallel)
        self.optimizer = build_optimizer(self.model, self.config.optimizer, ranks)
        self.scaler = torch.amp.GradScaler(plan.device.type) if plan.precision.needs_scaler else None
        self.state = TrainState(
            config=to_values(self.config),
            model=plan.model.to_hf(),
            data_sha256=data.sha256,
            tokenizer_sha256=tokenizer.sha256,
        )
        self.pace = Pace()
        self.gauges = Gauges(plan.device, ranks.world)
        self.deadline: Deadline | None = None
        """The session's, once training has begun."""
        self.guards = Guards(self.config.guard, run=str(self.config.output))
        self.branch: Branch | None = None
        """The cooldown at the end of the session, once it has begun."""
        self.save_s = checkpoint_bytes(plan.model.num_parameters) / 200e6  # until one was measured
        self._evaluation_s: float | None = None
        self._seen: Observed | None = None
        self._elapsed_before, self._began = 0.0, time.monotonic()
        self._told_elapsed: float | None = None

    def load(self, checkpoint: Path, state: TrainState) -> None:
        """Be what the run was at this checkpoint, whose state this is; the clock goes on."""
        restore(checkpoint, self.model, self.optimizer)
        for name in ("step", "cursor", "tokens", "skipped_steps", "skipped_windows", "rollbacks"):
            setattr(self.state, name, copy.deepcopy(getattr(state, name)))
        self.guards = Guards(self.config.guard, GuardState(**state.guard), run=self.guards.run)
        if self.scaler is not None and state.scaler is not None:
            self.scaler.load_state_dict(state.scaler)

    def resume(self, checkpoint: Path, state: TrainState) -> None:
        """Continue another session's run from this checkpoint."""
        self.load(checkpoint, state)
        self._elapsed_before = state.elapsed_s

    @property
    def evaluation_s(self) -> float:
        """Seconds that an evaluation takes: the last one, or a guess from the pace of training."""
        if self._evaluation_s is not None:
            return self._evaluation_s
        tokens = 0 if self.held_out is None else self.held_out.inputs.size
        return tokens / (3 * self.pace.tokens_per_second) if self.pace.tokens_per_second else 0.0

    @property
    def elapsed_s(self) -> float:
        """Seconds of training over all sessions; with several ranks, as the main one told last."""
        if self._told_elapsed is not None:
            return self._told_elapsed
        return self._elapsed_before + time.monotonic() - self._began

    @property
    def scale(self) -> float | None:
        """The loss scale of the last step, as that step's only wait brought it; None without a scaler."""
        return None if self._seen is None else self._seen.scale

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        by_steps = self.state.step / self.config.max_steps
        minutes = self.config.schedule.minutes
        return min(1.0, max(by_steps, self.elapsed_s / (60 * minutes)) if minutes else by_steps)

    def run(self, metrics: MetricsLog, guard: SignalGuard, deadline: Deadline) -> StopReason | None:
        """Train to the end (None), or until something asks to stop. Saves on its schedule, not at the end.

        Raises E_TRAINING_DIVERGED, E_MEMORY, E_DISK_FULL.
        """
        self._began, self.deadline = time.monotonic(), deadline
        deadline.began_s = deadline.age()
        self.model.train()
        self.parallel.agree_on_weights()
        self.agree(None)
        tell_again(self, metrics)
        if self.config.compile:
            from ptbr_slm.train.compile import compile_for  # 2 s of imports that others need not wait for

            compile_for(self)
        if self._due(self.config.evaluation.every):
            self.observe(metrics)  # where a stop came between a step and its evaluation
        while self.progress < 1.0:
            self.step_once(metrics)
            if (reason := self.agree(guard.reason)) is not None:
                return reason
            if self._due(self.config.evaluation.every):
                self.observe(metrics)
            if self.ranks.any(deadline.reached(self.pace.slowest_s, self.save_s, self.evaluation_s)):
                return "max_time"
            if deadline.cooldown_fraction and time_to_cool(self, deadline):
                return cool_down(self, metrics, guard, deadline)
            if self._due(self.config.checkpoint.every) and not self.guards.state.high:
                self.save()
        return None

    def begin_branch(self, branch: Branch) -> None:
        """From here on nothing is part of the run: no checkpoints, no rollbacks, and the branch's rate."""
        self.branch = branch
        self.guards = Guards(
            replace(self.config.guard, spike_sigmas=0.0), self.guards.state, run=self.guards.run
        )

    def agree(self, reason: StopReason | None) -> StopReason | None:
        """One word between the ranks after each step: the main one's clock, and the most urgent reason."""
        if self.ranks.world == 1:
            return reason
        self._told_elapsed = None
        words = self.ranks.exchange([self.elapsed_s, urgency(reason)])
        self._told_elapsed = words[0][0]
        return most_urgent(int(word[1]) for word in words)

    def step_once(self, metrics: MetricsLog) -> None:
        """The next optimizer step; where the loss spiked, back to an earlier one."""
        state, rate = self.state, self._rate()
        set_learning_rate(self.optimizer, rate)
        windows, cursor = take(state.cursor, self.config.step_sequences, state.skipped_windows)
        started = time.monotonic()
        result = attempt(self, windows)
        self.pace.add(result.target_tokens, time.monotonic() - started)
        seen = Observed(
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
        self._seen = seen
        verdict = self.guards.judge(seen)
        state.step += 1
        state.cursor = cursor
        state.tokens += result.target_tokens
        state.skipped_steps += not result.applied
        self._record(metrics, result, rate)
        if verdict == "spike":
            go_back(self, metrics, seen)

    def _rate(self) -> float:
        """The learning rate of the next step."""
        peak = self.config.optimizer.learning_rate
        assert peak is not None
        factor = lr_factor(self.config.schedule, self.state.step, self.config.max_steps, self.elapsed_s)
        return peak * factor * (1.0 if self.branch is None else self.branch.factor)

    def micro_batches(self, windows: list[range]) -> list[npt.NDArray[np.int64]]:
        """This rank's share of these windows, in arrays of at most `rows` x (seq_len + 1) tokens."""
        starts = np.concatenate([self.order.starts(piece.start, len(piece)) for piece in windows])
        mine = starts[self.ranks.share(len(starts))].tolist()
        length = self.config.seq_len + 1
        rows = [self.train_split.read(start, start + length) for start in mine]
        return [np.stack(rows[i : i + self.rows]) for i in range(0, len(rows), self.rows)]

    def _record(self, metrics: MetricsLog, result: StepResult, rate: float) -> None:
        known = math.isfinite(result.loss)
        record: dict[str, Any] = {
            "event": "step" if known else "dropped",
            "step": self.state.step,
            **({"loss": result.loss} if known else {}),
            "learning_rate": rate,
            "grad_norm": result.grad_norm if math.isfinite(result.grad_norm) else None,
            "tokens": self.state.tokens,
            "tokens_per_second": round(self.pace.tokens_per_second, 1),
            **self.throughput.of(self.pace.tokens_per_second),
            **self.gauges.record(),
            "elapsed_s": round(self.elapsed_s, 3),
        }
        if result.scale is not None:
            record["scale"] = result.scale
        if not result.applied:
            record |= {"skipped": True, "bad_micro_batches": list(result.bad_parts)}
        metrics.write(record)
        self.listener.event(record)
        if known:
            self.listener.progress(self.progress, status_line(self, result.loss))
        if self.state.step == 1 and self.config.init_from is None:
            self._check_first_loss(result.loss)

    def _check_first_loss(self, loss: float) -> None:
        """A fresh model knows nothing: its loss is ln V, or shapes, data or initialisation are wrong."""
        expected = math.log(self.plan.model.vocab_size)
        if abs(loss - expected) > 0.1 * expected:
            message = f"a primeira perda, {loss:.2f}, está longe de ln V = {expected:.2f}: confira os dados."
            self.listener.event({"event": "warning", "code": "first_loss", "message": message})

    def observe(self, metrics: MetricsLog) -> None:
        """Evaluate (all ranks) and write samples (the main one), once a step."""
        step, settings, started = self.state.step, self.config.evaluation, time.monotonic()
        if self.held_out is not None and not self.ranks.from_main(lambda: metrics.has("eval", step)):
            value = evaluate(self, self.held_out)
            record: dict[str, Any] = {"event": "eval", "step": step, "bits_per_byte": value}
            metrics.write(record)
            self.listener.event(record)
        if settings.sample_tokens and not self.ranks.from_main(lambda: metrics.has("sample", step)):
            model = gather(self.model, self.ranks)
            for prompt in settings.prompts if self.ranks.main else ():
                text = write_sample(model, self.tokenizer, prompt, settings.sample_tokens, self.config.seed)
                record = {"event": "sample", "step": step, "prompt": prompt, "text": text}
                metrics.write(record)
                self.listener.event(record)
        if metrics.has("eval", step):
            self._evaluation_s = max(time.monotonic() - started, self._evaluation_s or 0.0)

    def save(self, *, replace: bool = False) -> Path:
        """Write a checkpoint of this step; all ranks wait for it. replace: even where one of it exists."""
        assert self.branch is None
        self._refuse_broken_weights()
        started = time.monotonic()
        self.state.guard = asdict(self.guards.state)
        self.state.elapsed_s = self.elapsed_s
        self.state.scaler = self.scaler.state_dict() if self.scaler is not None else None
        path = self._write_checkpoint(replace)
        self.save_s = time.monotonic() - started
        self.listener.event(
            {
                "event": "checkpoint",
                "step": self.state.step,
                "path": str(path),
                "seconds": round(self.save_s, 3),
            }
        )
        return path

    def _refuse_broken_weights(self) -> None:
        """A checkpoint with a weight that is no number would be the newest, and worthless."""
        if self._seen is not None and self.ranks.any(not all_finite(self.model)):
            why = "há pesos que deixaram de ser números, e por isso nada foi salvo"
            raise diverged(why, self._seen, self.guards.state, self.guards.run)

    def _write_checkpoint(self, replace: bool) -> Path:
        return write_checkpoint(
            self.config.output / "checkpoints",
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

    def _protected(self) -> list[str]:
        """The checkpoint that a spike which is building up would go back to."""
        if not self.guards.state.high:
            return []
        names = {int(p.name.removeprefix("step-")): p.name
                 for p in list_checkpoints(self.config.output / "checkpoints")}  # fmt: skip
        step = last_good(list(names), self.guards.state.high_step)
        return [] if step is None else [names[step]]

    def _due(self, every: int) -> bool:
        return bool(every) and self.state.step > 0 and self.state.step % every == 0
