"""The memory planner against PyTorch, on this CPU; and what it plans for T4s, computed.

    python benchmarks/planner.py            # the tables on the terminal
    python benchmarks/planner.py --write    # and into docs/benchmarks.md

Bytes do not depend on how busy the machine is. docs/benchmarks.md says what is measured, and how.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from machine import facts
from results import table, write_section

from ptbr_slm.config import SIZES, model_config
from ptbr_slm.model import Llama
from ptbr_slm.train.batches import random_batch
from ptbr_slm.train.planning.activations import measured_peak_bytes, measured_saved_bytes
from ptbr_slm.train.planning.choice import LOSSES, policy_name
from ptbr_slm.train.planning.memory import GIB, T4_BYTES, estimate, saved_tensors
from ptbr_slm.train.planning.precision import Precision, PrecisionName
from ptbr_slm.train.planning.recommend import recommend
from ptbr_slm.train.step import autocast

CPU = torch.device("cpu")
SHAPES: dict[str, tuple[tuple[tuple[int, int], ...], tuple[PrecisionName, ...]]] = {
    "nano": (((2, 256), (4, 512), (2, 1024)), ("fp32", "bf16")),
    "mini": (((1, 256), (2, 512), (1, 1024)), ("fp32", "bf16")),
    "85m": (((1, 64), (1, 128)), ("fp32",)),
}
"""Size -> (batch_size, seq_len) to measure, and precisions; bf16 is emulated here and slow."""
POLICIES = (0, 2, 1)


@dataclass(frozen=True, slots=True)
class Measured:
    """One setting: bytes that PyTorch held, and that the planner computed."""

    size: str
    precision: str
    loss: str
    policy: str
    saved: tuple[int, int]
    """(measured, computed): what autograd holds when the loss is known."""
    peak: tuple[int, int]
    """(measured, computed): the most that forward and backward add to weights and gradients."""


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    found = list(measure(arguments.sizes))
    text = "\n\n".join(
        [
            f"`{' '.join(['python benchmarks/planner.py', *sys.argv[1:]])}`",
            facts(("torch",), arguments.threads),
            error_table(found),
            f"All {len(found)} settings: {worst(found)}.",
            "T4 plans, **computed, not measured**: sequences of 1,024 tokens, fp16, `--batch-size auto`.",
            plan_table(),
        ]
    )
    sys.stdout.write(text + "\n")
    if arguments.write:
        write_section("planner", text)


def measure(sizes: list[str]) -> Iterator[Measured]:
    """Every combination of size, length, precision, checkpointing and loss."""
    for size in sizes:
        shapes, precisions = SHAPES[size]
        for batch_size, seq_len in shapes:
            for precision in precisions:
                for every in POLICIES:
                    for loss in LOSSES:
                        sys.stderr.write(f"{size} {batch_size} x {seq_len} {precision} {every} {loss}\n")
                        yield one(size, batch_size, seq_len, precision, every, loss)


def one(
    size: str, batch_size: int, seq_len: int, precision: PrecisionName, every: int, loss: str
) -> Measured:
    """A real micro-batch, its second one of a step, against the planner."""
    model = model_config(size, max_seq_len=seq_len)
    llama = Llama(model).initialize(0).train()
    llama.checkpoint_every, llama.loss = every, loss
    batch = random_batch(model.vocab_size, batch_size, seq_len).to(CPU)

    def forward() -> torch.Tensor:
        with autocast(CPU, Precision(precision, "")):
            return llama.loss_sum(batch.tokens, batch.targets)

    saved = measured_saved_bytes(llama, forward)
    llama.backward_scale = torch.tensor(1.0)  # as in training, where the loss scale is known
    peak = measured_peak_bytes(forward)
    shape = {"batch_size": batch_size, "seq_len": seq_len, "checkpoint_every": every}
    e = estimate(model, **shape, precision=precision, device="cpu", loss=loss)
    computed = saved_tensors(model, **shape, precision=precision, device="cpu", loss=loss)
    transient = e.autocast_cache + e.activations + e.logits + e.workspace
    return Measured(size, precision, loss, policy_name(every), (saved, computed), (peak, transient))


def error_table(found: list[Measured]) -> str:
    """Relative errors by size, precision and loss, over lengths and checkpointing."""
    groups: dict[tuple[str, str, str], list[Measured]] = {}
    for item in found:
        groups.setdefault((item.size, item.precision, item.loss), []).append(item)
    rows = [
        [
            f"{size} {precision} {loss}",
            str(len(items)),
            f"{max(item.peak[0] for item in items) / 1e6:.0f}",
            *(
                f"{100 * value:.1f}"
                for value in (_worst(items, "saved"), _median(items), _worst(items, "peak"))
            ),
        ]
        for (size, precision, loss), items in groups.items()
    ]
    header = ["", "settings", "largest peak, MB", "held: worst, %", "peak: median, %", "peak: worst, %"]
    return table(header, rows)


def worst(found: list[Measured]) -> str:
    """The largest errors of all."""
    return (
        f"what autograd holds, largest error {100 * _worst(found, 'saved'):.1f} %; peak of forward and "
        f"backward, {100 * _worst(found, 'peak'):.1f} %"
    )


def plan_table() -> str:
    """What `--batch-size auto` takes on one and two T4s."""
    rows = []
    for size in ("85m", "400m", "800m"):
        for found in recommend(SIZES[size], 1024, "fp16", T4_BYTES):
            sharded = ", fsdp" if found.parallel == "fsdp" else ""
            name = f"{size}, {found.cards} x T4, {found.optimizer}{sharded}"
            best = found.setting
            if best is None:
                rows.append([name, "does not fit", *["-"] * 5])
                continue
            setting = [
                str(best.batch_size),
                str(found.sequences // best.batch_size),
                policy_name(best.checkpoint_every),
            ]
            figures = [f"{best.memory.total / GIB:.2f}", f"{best.tokens_per_second:,.0f}"]
            rows.append([name, *setting, best.loss, *figures])
    header = ["", "batch_size", "grad_accum", "checkpointing", "loss", "GiB a card", "tokens/s of all"]
    return table(header, rows)


def _errors(items: list[Measured], what: str) -> list[float]:
    pairs = [getattr(item, what) for item in items]
    return [abs(computed / measured - 1) for measured, computed in pairs]


def _worst(items: list[Measured], what: str) -> float:
    return max(_errors(items, what))


def _median(items: list[Measured]) -> float:
    return statistics.median(_errors(items, "peak"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write the tables into docs/benchmarks.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
