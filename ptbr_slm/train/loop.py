"""The training loop: step, look, save, until the last step or a reason to stop."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.errors import SlmError
from ptbr_slm.model import Llama
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.checkpoint import TrainState, checkpoint_bytes, write_checkpoint
from ptbr_slm.train.config_file import to_values
from ptbr_slm.train.evaluate import bits_per_byte, held_out
from ptbr_slm.train.events import Listener
from ptbr_slm.train.metrics import MetricsLog
from ptbr_slm.train.optim import build_optimizer, set_learning_rate
from ptbr_slm.train.order import WindowOrder
from ptbr_slm.train.parallel import parallelize
from ptbr_slm.train.plan import Plan
from ptbr_slm.train.ranks import ALONE, Ranks
from ptbr_slm.train.samples import write_sample
from ptbr_slm.train.schedule import lr_factor
from ptbr_slm.train.status import Pace, status_line
from ptbr_slm.train.step import StepResult, optimizer_step
from ptbr_slm.train.stop import Deadline, SignalGuard, StopReason, most_urgent, urgency
from ptbr_slm.train.throughput import throughput

MAX_SKIPS = 25
"""fp16 steps skipped in a row before giving up: the scale has then fallen from 65,536 by 2^25."""


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
        self.train_split = data.split("train")
        self.order = WindowOrder(self.train_split.tokens, self.config.seq_len, self.config.seed)
        self.held_out = held_out(
            data.split("valid"), tokenizer, self.config.seq_len, self.config.evaluation.tokens
        )
        # Before the model takes its memory; the other ranks' cards are taken to be like the main one's.
        self.throughput = throughput(
            plan.model, self.config.seq_len, plan.device, plan.precision, ranks.world, measure=ranks.main
        )
        self.model = Llama(plan.model).to(plan.device)
        self.model.checkpoint_every = plan.checkpoint_every
        self.model.loss, self.model.z_loss = plan.loss, self.config.z_loss
        self.parallel = parallelize(self.model, ranks)
        self.optimizer = build_optimizer(self.model, self.config.optimizer, ranks)
        self.scaler = torch.amp.GradScaler(plan.device.type) if plan.precision.needs_scaler else None
        self.state = TrainState(
            config=to_values(self.config),
            model=plan.model.to_hf(),
            data_sha256=data.sha256,
            tokenizer_sha256=tokenizer.sha256,
        )
        self.pace = Pace()
        self.save_s = checkpoint_bytes(plan.model.num_parameters) / 200e6  # until one was measured
        self._skips_in_a_row = 0
        self._elapsed_before, self._began = 0.0, time.monotonic()
        self._told_elapsed: float | None = None

    def resume(self, state: TrainState) -> None:
        """Continue from this state; weights and moments are restored already."""
        for name in ("step", "cursor", "tokens", "elapsed_s", "skipped_steps"):
            setattr(self.state, name, getattr(state, name))
        self._elapsed_before = state.elapsed_s
        if self.scaler is not None and state.scaler is not None:
            self.scaler.load_state_dict(state.scaler)

    @property
    def elapsed_s(self) -> float:
        """Seconds of training over all sessions; with several ranks, as the main one told when it last did."""
        if self._told_elapsed is not None:
            return self._told_elapsed
        return self._elapsed_before + time.monotonic() - self._began

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
        self._began = time.monotonic()
        self.model.train()
        self.parallel.agree_on_weights()
        self._agree(None)
        if self._due(self.config.evaluation.every):
            self.observe(metrics)  # where a stop came between a step and its evaluation
        while self.progress < 1.0:
            self._step(metrics)
            if (reason := self._agree(guard.reason)) is not None:
                return reason
            if self._due(self.config.evaluation.every):
                self.observe(metrics)
            if self.ranks.any(deadline.reached(self.pace.slowest_s, self.save_s)):
                return "max_time"
            if self._due(self.config.checkpoint.every):
                self.save()
        return None

    def _agree(self, reason: StopReason | None) -> StopReason | None:
        """One word between the ranks after each step: the main one's clock, and the most urgent reason of any."""
        if self.ranks.world == 1:
            return reason
        self._told_elapsed = None
        words = self.ranks.exchange([self.elapsed_s, urgency(reason)])
        self._told_elapsed = words[0][0]
        return most_urgent(int(word[1]) for word in words)

    def _step(self, metrics: MetricsLog) -> None:
        state, peak = self.state, self.config.optimizer.learning_rate
        assert peak is not None
        rate = peak * lr_factor(self.config.schedule, state.step, self.config.max_steps, self.elapsed_s)
        set_learning_rate(self.optimizer, rate)
        started = time.monotonic()
        result = optimizer_step(
            self.model,
            self.optimizer,
            self._micro_batches(),
            precision=self.plan.precision,
            scaler=self.scaler,
            gradient_clip=self.config.optimizer.gradient_clip,
            parallel=self.parallel,
            ranks=self.ranks,
        )
        if not result.applied:
            self._skip_or_fail(result, rate)
        self.pace.add(result.target_tokens, time.monotonic() - started)
        state.step += 1
        state.cursor += self.config.step_sequences
        state.tokens += result.target_tokens
        self._record(metrics, result, rate)

    def _micro_batches(self) -> list[npt.NDArray[np.int64]]:
        """This rank's share of the step, in arrays of at most `rows` x (seq_len + 1) tokens."""
        starts = self.order.starts(self.state.cursor, self.config.step_sequences)
        mine = starts[self.ranks.share(len(starts))].tolist()
        length = self.config.seq_len + 1
        windows = [self.train_split.read(start, start + length) for start in mine]
        return [np.stack(windows[i : i + self.rows]) for i in range(0, len(windows), self.rows)]

    def _skip_or_fail(self, result: StepResult, rate: float) -> None:
        if self.scaler is not None and math.isfinite(result.loss):
            self.state.skipped_steps += 1
            self._skips_in_a_row += 1
            if self._skips_in_a_row < MAX_SKIPS:
                return
        half = (self.config.optimizer.learning_rate or rate) / 2
        raise SlmError(
            "E_TRAINING_DIVERGED",
            f"a perda deixou de ser um número no passo {self.state.step + 1} (perda {result.loss}, norma do "
            f"gradiente {result.grad_norm}, taxa {rate:.2e}, janela {self.state.cursor}); "
            "o último checkpoint está intacto.",
            where=self.config.output,
            hint=f"Continue do último checkpoint com --learning-rate {half:.1e} --allow-config-change.",
        )

    def _record(self, metrics: MetricsLog, result: StepResult, rate: float) -> None:
        if result.applied:
            self._skips_in_a_row = 0
        record: dict[str, Any] = {
            "event": "step",
            "step": self.state.step,
            "loss": result.loss,
            "learning_rate": rate,
            "grad_norm": result.grad_norm if math.isfinite(result.grad_norm) else None,
            "tokens": self.state.tokens,
            "tokens_per_second": round(self.pace.tokens_per_second, 1),
            **self.throughput.of(self.pace.tokens_per_second),
            "elapsed_s": round(self.elapsed_s, 3),
        }
        if not result.applied:
            record["skipped"] = True
        metrics.write(record)
        self.listener.event(record)
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
        step, settings = self.state.step, self.config.evaluation
        if self.held_out is not None and not self.ranks.from_main(lambda: metrics.has("eval", step)):
            value = bits_per_byte(
                self.model, self.held_out, self.config.batch_size, self.plan.precision, self.ranks
            )
            record: dict[str, Any] = {"event": "eval", "step": step, "bits_per_byte": value}
            metrics.write(record)
            self.listener.event(record)
        if self.ranks.main and settings.sample_tokens and not metrics.has("sample", step):
            for prompt in settings.prompts:
                text = write_sample(
                    self.model, self.tokenizer, prompt, settings.sample_tokens, self.config.seed
                )
                record = {"event": "sample", "step": step, "prompt": prompt, "text": text}
                metrics.write(record)
                self.listener.event(record)

    def save(self) -> Path:
        """Write a checkpoint of this step; all ranks wait for it."""
        started = time.monotonic()
        self.state.elapsed_s = self.elapsed_s
        self.state.scaler = self.scaler.state_dict() if self.scaler is not None else None
        path = self.ranks.from_main(self._write_checkpoint)
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

    def _write_checkpoint(self) -> Path:
        return write_checkpoint(
            self.config.output / "checkpoints",
            self.model,
            self.optimizer,
            self.tokenizer,
            self.state,
            keep=self.config.checkpoint.keep,
        )

    def _due(self, every: int) -> bool:
        return bool(every) and self.state.step > 0 and self.state.step % every == 0
