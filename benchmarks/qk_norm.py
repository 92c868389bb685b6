"""Does QK-norm hold a higher learning rate, in fp32 and with the rounding of fp16? Counted in steps.

    python benchmarks/qk_norm.py --data PREPARED

A small model (4 layers x 128, two heads of 64) is trained from the same weights on the same windows, with and
without QK-norm, at rising learning rates (AdamW, warm-up and cosine, clipped at 1). fp16 is the CPU's
autocast with a GradScaler: products rounded as on a T4, some accumulated in another order. In Markdown: the
training loss over the last tenth of the steps, its worst value after the warm-up, skipped steps, and the
largest attention score (scaled, before softmax) of the finished model. fp16 overflows above 65,504.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from results import table

from ptbr_slm.config import ModelConfig
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.model import Llama
from ptbr_slm.train.batches import TextBatches
from ptbr_slm.train.config import OptimizerConfig, ScheduleConfig
from ptbr_slm.train.optim import build_optimizer, set_learning_rate
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.train.schedule import lr_factor
from ptbr_slm.train.step import optimizer_step

SEQ_LEN, ROWS, WARM_UP = 128, 8, 20
RATES = (2e-3, 8e-3, 3.2e-2, 0.128)


@dataclass(frozen=True, slots=True)
class Curve:
    """One run."""

    losses: list[float]
    skipped: int
    score: float
    """Largest attention score of the finished model."""

    def loss(self, last: int) -> float:
        """Mean of the last steps."""
        return float(np.mean(self.losses[-last:]))


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    data = PreparedData.open(arguments.data)
    rows, curves = [], []
    for precision in arguments.precisions:
        for rate in arguments.rates:
            for qk_norm in (False, True):
                curve = train(data, rate, qk_norm, precision, arguments.steps)
                last = arguments.steps // 10
                name = f"{precision} {rate:g}{' QK-norm' if qk_norm else ''}"
                rows.append([name, f"{curve.loss(last):.3f}", f"{max(curve.losses[WARM_UP:]):.2f}",
                             str(curve.skipped), f"{curve.score:.0f}"])  # fmt: skip
                marks = range(arguments.steps // 6, arguments.steps + 1, arguments.steps // 6)
                curves.append(
                    [name, *(f"{np.mean(curve.losses[max(0, mark - 10) : mark]):.2f}" for mark in marks)]
                )
                sys.stderr.write(" ".join(rows[-1]) + "\n")
    header = ["", "final loss", "worst after warm-up", "skipped steps", "largest score"]
    steps = [str(mark) for mark in range(arguments.steps // 6, arguments.steps + 1, arguments.steps // 6)]
    sys.stdout.write(f"{table(header, rows)}\n\nLoss at step:\n\n{table(['', *steps], curves)}\n")


def train(data: PreparedData, rate: float, qk_norm: bool, precision: str, steps: int) -> Curve:
    """The run of one cell."""
    split = data.split("train")
    shape = ModelConfig(
        vocab_size=data.load_tokenizer().vocab_size,
        hidden_size=128,
        num_layers=4,
        num_heads=2,
        num_kv_heads=1,
        intermediate_size=320,
        max_seq_len=SEQ_LEN,
    )
    model = Llama(replace(shape, qk_norm=qk_norm)).initialize(0).train()
    optimizer = build_optimizer(model, OptimizerConfig(name="adamw", learning_rate=rate))
    scaler = torch.amp.GradScaler("cpu") if precision == "fp16" else None
    schedule = ScheduleConfig(kind="cosine", warmup_steps=WARM_UP)
    batches = TextBatches(split, seq_len=SEQ_LEN, seed=0)
    losses, skipped = [], 0
    for step in range(steps):
        set_learning_rate(optimizer, rate * lr_factor(schedule, step, steps, 0.0))
        batch = batches.sequences([range(step * ROWS, (step + 1) * ROWS)])
        result = optimizer_step(
            model,
            optimizer,
            [batch],
            precision=Precision("fp16" if precision == "fp16" else "fp32", ""),
            scaler=scaler,
            gradient_clip=1.0,
        )
        losses.append(result.loss)
        skipped += not result.applied
    return Curve(losses, skipped, largest_score(model, torch.from_numpy(batch.tokens)))


@torch.no_grad()
def largest_score(model: Llama, tokens: torch.Tensor) -> float:
    """Over all layers and heads, of what a query may see."""
    attention, found = F.scaled_dot_product_attention, 0.0

    def watch(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **rest: object) -> torch.Tensor:
        nonlocal found
        scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).tril()
        found = max(found, float(scores.abs().max()))
        mixed: torch.Tensor = attention(q, k, v, **rest)  # type: ignore[arg-type]
        return mixed

    F.scaled_dot_product_attention = watch  # type: ignore[assignment]
    try:
        model.eval()(tokens)
    finally:
        F.scaled_dot_product_attention = attention
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="prepared data with a small vocabulary")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--precisions", nargs="+", default=["fp32", "fp16"], choices=["fp32", "fp16"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
