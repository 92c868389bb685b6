"""One of two ranks, each with a simulated T4: a few steps, their losses, and the peak of each in bytes.

python simulated_ranks.py FOLDER ddp|fsdp      started twice, with torchrun's variables
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from ptbr_slm.config import ModelConfig
from ptbr_slm.model import Llama
from ptbr_slm.train.batches import MicroBatch
from ptbr_slm.train.config import OptimizerConfig
from ptbr_slm.train.optim import build_optimizer
from ptbr_slm.train.parallel.parallelize import parallelize
from ptbr_slm.train.parallel.shards import fill
from ptbr_slm.train.parallel.world import join_ranks
from ptbr_slm.train.planning.memory import estimate
from ptbr_slm.train.planning.precision import choose_precision
from ptbr_slm.train.step import optimizer_step

SHAPE = ModelConfig(vocab_size=300, hidden_size=256, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=64,
                    intermediate_size=704, max_seq_len=32)  # fmt: skip
BATCH_SIZE, STEPS, MICRO_BATCHES = 2, 4, 4


def main() -> None:
    """See the module."""
    torch.set_num_threads(1)
    folder, how = Path(sys.argv[1]), sys.argv[2]
    with join_ranks("cuda") as ranks:
        device = torch.device("cuda", ranks.local_rank)
        before = torch.cuda.memory_allocated(device)
        model = Llama(SHAPE).train()
        model.checkpoint_every = 1
        parallel = parallelize(model, device, ranks, how)
        fill(model, lambda whole: whole.initialize(0))
        parallel.broadcast_weights()
        optimizer = build_optimizer(model, OptimizerConfig(name="adamw", learning_rate=1e-3), ranks)
        scaler = torch.amp.GradScaler("cuda")
        steps = []
        for number in range(STEPS):
            windows = np.random.default_rng(number).integers(0, 300, (2 * BATCH_SIZE * MICRO_BATCHES, 33))
            mine = MicroBatch.of_windows(windows[ranks.share(len(windows))])
            torch.cuda.reset_peak_memory_stats(device)
            result = optimizer_step(
                model,
                optimizer,
                mine.split(BATCH_SIZE),
                precision=choose_precision("cuda", (7, 5)),
                scaler=scaler,
                gradient_clip=1.0,
                parallel=parallel,
                ranks=ranks,
            )
            peak = torch.cuda.max_memory_allocated(device) - before
            steps.append({"loss": result.loss, "peak": peak, "applied": result.applied})
        planned = estimate(
            SHAPE,
            batch_size=BATCH_SIZE,
            seq_len=32,
            checkpoint_every=1,
            precision="fp16",
            ranks=2,
            parallel=how,
        )
        body = {"steps": steps, "planned": asdict(planned) | {"total": planned.total - planned.context},
                "weights": 4 * SHAPE.num_parameters}  # fmt: skip
        (folder / f"{how}.{ranks.rank}.json").write_text(json.dumps(body), encoding="utf-8")


if __name__ == "__main__":
    main()
