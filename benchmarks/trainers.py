"""The trainers that are compared, each run once in a process of its own.

Same shape, data, batch, sequence length, fp32, AdamW (fused in all), clipping at 1 and cosine schedule;
random initial weights. The clock of a step runs from the end of the one before to its own end: reading the
batch, forward, backward, clipping, update, schedule and each trainer's own bookkeeping are inside.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
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
    cpu_time: bool = False
    """Count the process's CPU seconds, not the wall clock's: with one thread, on a machine that is busy."""

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
    cpu_time: bool = False
    step_ends: list[float] = field(default_factory=list)

    def end_step(self) -> None:
        """Note the end of an optimizer step."""
        self.step_ends.append(time.process_time() if self.cpu_time else time.perf_counter())
        self.peak_bytes = peak_memory()

    def step_seconds(self, warm_up: int) -> list[float]:
        """Seconds of each step after the first `warm_up`, at least one."""
        ends = self.step_ends[warm_up - 1 :]
        return [after - before for before, after in pairwise(ends)]


Trainer = Callable[[Job], Run]


def ptbr_slm(job: Job) -> Run:
    """Ours, the whole of `ptbr_slm.train.run.train`, without evaluation and checkpoints on the way."""
    import torch

    from ptbr_slm.events import Event
    from ptbr_slm.train.config import CheckpointConfig, EvaluationConfig, TrainConfig
    from ptbr_slm.train.events import Started, Step
    from ptbr_slm.train.run import train

    torch.set_num_threads(job.threads)
    run = Run(imports_bytes=peak_memory(), cpu_time=job.cpu_time)

    class Listener:
        def event(self, event: Event) -> None:
            match event:
                case Started(parameters=parameters):
                    run.parameters = parameters
                case Step():
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
    run = Run(imports_bytes=peak_memory(), cpu_time=job.cpu_time)
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


def litgpt(job: Job) -> Run:
    """litgpt's GPT in `litgpt.pretrain.fit`, the loop of `litgpt pretrain`, on Lightning Fabric.

    What `litgpt.pretrain.main` does before that is done here by the same calls, but for torch.compile, which
    the other trainers do not use either, and for AdamW, which it fuses on a GPU only and here on the CPU too.
    fit begins with two batches of validation, as it always does; nothing is saved.
    """
    import lightning
    import torch
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.pretrain import fit, initialize_weights
    from litgpt.utils import instantiate_torch_optimizer

    from ptbr_slm.config import model_config
    from ptbr_slm.data.prepared import PreparedData

    torch.set_num_threads(job.threads)
    run = Run(imports_bytes=peak_memory(), cpu_time=job.cpu_time)
    split = PreparedData.open(job.data).split("train")
    shape = model_config(job.size, max_seq_len=job.seq_len)

    class Windows(torch.utils.data.Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return split.tokens // job.seq_len - 1

        def __getitem__(self, index: int) -> torch.Tensor:
            start = index * job.seq_len
            return torch.from_numpy(split.read(start, start + job.seq_len + 1))

    class Clock:
        """A data loader that notes when the next batch is asked for: the end of a step."""

        def __init__(self, loader: Any) -> None:
            self.loader = loader

        def __iter__(self) -> Iterator[torch.Tensor]:
            for index, batch in enumerate(self.loader):
                if index:
                    run.end_step()
                yield batch

    fabric = lightning.Fabric(devices=1, accelerator="cpu", precision="32-true")
    fabric.launch()
    with fabric.init_module(empty_init=True):
        model = GPT(litgpt_config(Config, shape))
    initialize_weights(fabric, model, n_layer=shape.num_layers, n_embd=shape.hidden_size)
    model.transformer.wte.weight = model.lm_head.weight
    model.max_seq_length = job.seq_len
    run.parameters = sum(parameter.numel() for parameter in model.parameters())
    model = fabric.setup(model)
    settings = {
        "class_path": "torch.optim.AdamW",
        "init_args": {"lr": 6e-4, "weight_decay": 0.1, "betas": (0.9, 0.95)},
    }
    optimizer = fabric.setup_optimizers(instantiate_torch_optimizer(settings, model.parameters(), fused=True))
    loader = fabric.setup_dataloaders(torch.utils.data.DataLoader(Windows(), batch_size=job.batch_size))
    with tempfile.TemporaryDirectory() as folder:
        fit(
            fabric=fabric,
            devices=1,
            state={
                "model": model,
                "optimizer": optimizer,
                "train_dataloader": loader,
                "iter_num": 0,
                "step_count": 0,
            },
            train_dataloader=Clock(loader),
            val_dataloader=loader,
            out_dir=Path(folder),
            tokenizer_dir=None,
            train=TrainArgs(
                save_interval=None,
                log_interval=10**9,
                global_batch_size=job.batch_size,
                micro_batch_size=job.batch_size,
                lr_warmup_steps=2,
                max_tokens=job.steps * job.tokens_per_step,
                max_norm=1.0,
                min_lr=6e-5,
            ),
            eval=EvalArgs(interval=10**9, final_validation=False),
        )
    return run


def litgpt_config(kind: Any, shape: Any) -> Any:
    """litgpt's `Config` of our `ModelConfig`: a Llama."""
    return kind(
        name="ptbr-slm",
        block_size=shape.max_seq_len,
        vocab_size=shape.vocab_size,
        padded_vocab_size=shape.vocab_size,
        n_layer=shape.num_layers,
        n_embd=shape.hidden_size,
        n_head=shape.num_heads,
        head_size=shape.head_dim,
        n_query_groups=shape.num_kv_heads,
        intermediate_size=shape.intermediate_size,
        rotary_percentage=1.0,
        rope_base=int(shape.rope_theta),
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=shape.norm_eps,
        mlp_class_name="LLaMAMLP",
    )
