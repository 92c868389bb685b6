"""The two trainers that are compared, each run once in a process of its own.

Same shape, data, batch, sequence length, fp32, AdamW (fused in both), clipping at 1 and cosine schedule;
random initial weights. The clock of a step runs from the end of the one before to its own end: reading the
batch, forward, backward, clipping, update, schedule and each trainer's own bookkeeping are inside.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from machine import peak_memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One run."""

    size: str
    data: Path
    """A prepared folder."""
    batch_size: int
    seq_len: int
    steps: int
    threads: int

    @property
    def tokens_per_step(self) -> int:
        """Of one optimizer step; no accumulation."""
        return self.batch_size * self.seq_len


@dataclass(slots=True)
class Run:
    """What one run did."""

    parameters: int = 0
    imports_bytes: int = 0
    """Largest resident memory before the model is made: Python and the libraries."""
    peak_bytes: int = 0
    """Largest resident memory up to the last step."""
    step_ends: list[float] = field(default_factory=list)

    def end_step(self) -> None:
        """Note the end of an optimizer step."""
        self.step_ends.append(time.perf_counter())
        self.peak_bytes = peak_memory()

    def step_seconds(self, warm_up: int) -> list[float]:
        """Seconds of each step after the first `warm_up`, at least one."""
        ends = self.step_ends[warm_up - 1 :]
        return [after - before for before, after in pairwise(ends)]


Trainer = Callable[[Job], Run]


def run_alone(trainer: Trainer, job: Job) -> Run:
    """Run `trainer` in a fresh process. Raises RuntimeError where it fails."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    os.environ["OMP_NUM_THREADS"] = str(job.threads)  # the child inherits it
    process = context.Process(target=_answer, args=(theirs, trainer, job))
    process.start()
    theirs.close()
    try:
        result: Run = ours.recv()
    except EOFError:
        raise RuntimeError(f"{trainer.__name__} failed; its error is above") from None
    finally:
        process.join()
    return result


def ptbr_slm(job: Job) -> Run:
    """Ours, the whole of `ptbr_slm.train.run.train`, without evaluation and checkpoints on the way."""
    import torch

    from ptbr_slm.train.config import CheckpointConfig, EvaluationConfig, TrainConfig
    from ptbr_slm.train.run import train

    torch.set_num_threads(job.threads)
    run = Run(imports_bytes=peak_memory())

    class Listener:
        def event(self, record: Mapping[str, Any]) -> None:
            if record["event"] == "start":
                run.parameters = record["parameters"]
            elif record["event"] == "step":
                run.end_step()

        def progress(self, done: float, status: str) -> None:
            pass

    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            data=job.data,
            output=Path(folder) / "run",
            model_size=job.size,
            batch_size=job.batch_size,
            seq_len=job.seq_len,
            max_steps=job.steps,
            precision="fp32",
            device="cpu",
            evaluation=EvaluationConfig(every=0, tokens=job.seq_len, sample_tokens=0),
            checkpoint=CheckpointConfig(every=0),
        )
        train(config, Listener())
    return run


def transformers(job: Job) -> Run:
    """transformers' Trainer on LlamaForCausalLM (scaled_dot_product_attention), nothing logged or saved."""
    import torch
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        PrinterCallback,
        TrainerCallback,
        TrainingArguments,
    )
    from transformers import Trainer as HfTrainer

    from ptbr_slm.config import model_config
    from ptbr_slm.data.prepared import PreparedData

    torch.set_num_threads(job.threads)
    run = Run(imports_bytes=peak_memory())
    split = PreparedData.open(job.data).split("train")

    class Windows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
        def __len__(self) -> int:
            return split.tokens // job.seq_len

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            window = torch.from_numpy(split.read(index * job.seq_len, (index + 1) * job.seq_len))
            return {"input_ids": window, "labels": window}

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            run.end_step()

    model = LlamaForCausalLM(LlamaConfig(**model_config(job.size, max_seq_len=job.seq_len).to_hf()))
    run.parameters = model.num_parameters()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=job.batch_size,
            max_steps=job.steps,
            use_cpu=True,
            lr_scheduler_type="cosine",
            learning_rate=6e-4,
            weight_decay=0.1,
            adam_beta2=0.95,
            max_grad_norm=1.0,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = HfTrainer(model=model, args=arguments, train_dataset=Windows(), callbacks=[Clock()])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return run


def _answer(pipe: Connection, trainer: Trainer, job: Job) -> None:
    pipe.send(trainer(job))
