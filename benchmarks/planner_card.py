"""The memory planner against the training step on a simulated T4, at the true sizes.

    python benchmarks/planner_card.py            # the table on the terminal
    python benchmarks/planner_card.py --write    # and into docs/benchmarks.md

The real optimizer step (autocast, GradScaler, checkpointing, loss, optimizer, DDP) runs with tensors that
have shapes and bytes but no numbers (tests/support/simulated_cuda), and its largest sum of allocations is set
beside the plan. Counted, not measured on a card: the CUDA context, fragmentation, NCCL's buffers and the
workspaces of kernels are in neither figure.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from results import progress, table, write_section
from torch import Tensor

from ptbr_slm.train.parallel.world import SINGLE_PROCESS, Ranks

CASES = (
    # size, batch_size, seq_len, checkpoint_every, loss, optimizer, cards
    ("85m", 8, 1024, 0, "plain", "adamw", 1),
    ("85m", 8, 1024, 0, "chunked", "adamw", 1),
    ("85m", 16, 1024, 1, "chunked", "adamw", 1),
    ("400m", 2, 256, 0, "chunked", "adamw", 1),
    ("400m", 8, 1024, 1, "chunked", "adamw", 1),
    ("400m", 2, 1024, 0, "chunked", "muon", 1),
    ("800m", 1, 1024, 1, "chunked", "adamw", 1),
    ("800m", 4, 1024, 1, "chunked", "adamw", 1),
    ("800m", 1, 1024, 0, "chunked", "muon", 1),
    ("400m", 8, 1024, 1, "chunked", "adamw", 2),
    ("800m", 1, 1024, 1, "chunked", "adamw", 2),
    ("800m", 4, 1024, 1, "chunked", "adamw", 2),
)
HEADER = (
    "size",
    "cards",
    "batch x seq",
    "checkpointing",
    "loss",
    "optimizer",
    "planned GiB",
    "counted GiB",
    "error",
)
GIB = 1 << 30
SUPPORT = Path(__file__).resolve().parent.parent / "tests" / "support"


def main() -> None:
    """Each case in a process of its own, which gets its simulated card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write the table into docs/benchmarks.md")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case is not None:
        sys.stdout.write(json.dumps(count(arguments.case)))
        return
    rows, errors = [], []
    for index, (size, batch, length, every, loss, optimizer, cards) in enumerate(CASES):
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, __file__, "--case", str(index)], capture_output=True, text=True, check=True
        )
        planned, counted = json.loads(done.stdout)
        errors.append(planned / counted - 1)
        policy = {0: "none", 1: "full"}[every]
        rows.append(
            [size, str(cards), f"{batch} x {length}", policy, loss, optimizer, f"{planned / GIB:.2f}",
             f"{counted / GIB:.2f}", f"{100 * errors[-1]:+.1f} %"]
        )  # fmt: skip
        progress(f"{size} {policy} {loss} {optimizer}, {cards} card(s): {time.monotonic() - began:.0f} s")
    worst = max(errors, key=abs)
    text = f"`python benchmarks/planner_card.py`\n\n{table(HEADER, rows)}\n\nWorst: {100 * worst:+.1f} %."
    sys.stdout.write(text + "\n")
    if arguments.write:
        write_section("planner_card", text)


def count(index: int) -> tuple[int, int]:
    """(planned, counted) bytes of the peak of a step from the second on, without the context."""
    sys.path.insert(0, str(SUPPORT))
    import numpy as np
    import torch
    from simulated_cuda import Card, machine

    from ptbr_slm.config import model_config
    from ptbr_slm.model import Llama
    from ptbr_slm.train.batches import MicroBatch
    from ptbr_slm.train.config import OptimizerConfig
    from ptbr_slm.train.optim import build_optimizer
    from ptbr_slm.train.parallel.parallelize import Parallel, Replicas
    from ptbr_slm.train.planning.memory import estimate
    from ptbr_slm.train.planning.precision import choose_precision
    from ptbr_slm.train.step import optimizer_step

    size, batch, length, every, loss, name, world = CASES[index]
    config = model_config(size, max_seq_len=length)
    with machine(Card(0, shapes_only=True, total_bytes=64 * GIB)) as cards:
        with torch.device("meta"):
            model = Llama(config).train()
        model.to_empty(device="cuda")
        model.checkpoint_every, model.loss = every, loss
        ranks = _alone_among(world)
        parallel = Replicas(model, ranks) if world > 1 else Parallel(model)
        optimizer = build_optimizer(model, OptimizerConfig(name=name, learning_rate=1e-3), ranks)
        scaler = torch.amp.GradScaler("cuda")
        micro_batches = [MicroBatch.of_windows(np.zeros((batch, length + 1), np.int64))] * 2
        precision = choose_precision("cuda", (7, 5))
        for _ in range(3):
            cards[0].peak = cards[0].allocated
            optimizer_step(
                model, optimizer, micro_batches, precision=precision, scaler=scaler, gradient_clip=1.0,
                parallel=parallel, ranks=ranks,
            )  # fmt: skip
        peak = cards[0].peak
    planned = estimate(
        config,
        ranks=world,
        batch_size=batch,
        seq_len=length,
        checkpoint_every=every,
        precision="fp16",
        optimizer=name,
        loss=loss,
    )
    return planned.total - planned.context, peak


def _alone_among(world: int) -> Ranks:
    """The main rank of so many, of which the others do what it does: nothing is sent."""
    if world == 1:
        return SINGLE_PROCESS
    import torch
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    class Alike(Ranks):
        """The others' words are ours."""

        def exchange(self, words: Sequence[float]) -> list[list[float]]:
            return [list(words)] * self.world

        def any(self, flag: bool) -> bool:
            return flag

        def sum_(self, tensor: Tensor) -> Tensor:
            return tensor

    # The order of the buckets travels through the card, where there are no numbers: it stays as it is.
    torch._C._distributed_c10d.Reducer._rebuild_buckets = lambda self: False
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world)
    return Alike(0, world)


if __name__ == "__main__":
    main()
