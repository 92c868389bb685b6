"""Does a teacher's stored top-k pay in pre-training? The same tokens and steps, with it and without.

    python benchmarks/distillation.py --data PREPARED --teacher MODEL --folder WORK

A student reads some of the training part of prepared data once. The teacher is a larger model that has read
more of the same data. Held out is the data's own validation part, which neither has trained on. In Markdown:
bits per byte by the teacher's weight in the loss and by seed, CPU seconds of the training (the same on a busy
machine), and what the teacher's predictions took.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from machine import facts
from results import table

from ptbr_slm.data.pipeline import prepare
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.teacher_logits import TeacherLogits
from ptbr_slm.eval.bits import HeldOut, held_out_windows
from ptbr_slm.model import Llama
from ptbr_slm.train.config_file import from_values
from ptbr_slm.train.evaluate import bits_per_byte
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.train.run import train
from ptbr_slm.train.teacher import write_teacher_logits

BATCH, SEQ_LEN, SPANS = 4, 256, 8


@dataclass(frozen=True, slots=True)
class Run:
    """One student."""

    bits: float
    cpu_s: float


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    whole = PreparedData.open(arguments.data)
    text = held_out_windows(whole.split("valid"), whole.load_tokenizer(), SEQ_LEN, arguments.held_out_tokens)
    assert text is not None
    data = subset(whole, arguments.steps * BATCH * SEQ_LEN + SEQ_LEN, arguments.folder)
    began = time.process_time()
    logits = write_teacher_logits(arguments.teacher, data.folder, arguments.folder / "logits")
    teacher_s = time.process_time() - began
    runs = {
        (weight, seed): student(data, logits, weight, seed, text, arguments)
        for seed in arguments.seeds
        for weight in arguments.weights
    }
    rows = []
    for weight in arguments.weights:
        mine = [runs[weight, seed] for seed in arguments.seeds]
        rows.append(
            [
                f"{weight:g}" if weight else "no teacher",
                *(f"{run.bits:.4f}" for run in mine),
                f"{fmean(run.bits for run in mine):.4f}",
                f"{fmean(run.cpu_s for run in mine):.0f}",
            ]
        )
    header = ["weight", *(f"bits a byte, seed {seed}" for seed in arguments.seeds), "mean", "CPU s"]
    size = logits.facts.tokens * logits.facts.dtype.itemsize
    teacher = Llama.from_folder(arguments.teacher)
    report = (
        f"{facts(['torch'], arguments.threads)}\n\n"
        f"Student: {arguments.size}, {arguments.steps} steps of {BATCH} x {SEQ_LEN} tokens. Teacher: "
        f"{teacher.config.num_parameters / 1e6:.1f} M parameters, {measure(teacher, text):.4f} bits a byte. "
        f"Its predictions: {logits.facts.tokens} tokens, top {logits.facts.top_k}, {size / 1e6:.0f} MB, "
        f"{teacher_s:.0f} CPU s.\n\n{table(header, rows)}\n"
    )
    sys.stdout.write(report)


def subset(whole: PreparedData, tokens: int, folder: Path) -> PreparedData:
    """Some of the training part, from SPANS places of it, prepared by itself."""
    split, tokenizer = whole.split("train"), whole.load_tokenizer()
    texts, length = folder / "texts", -(-tokens // SPANS)
    texts.mkdir(parents=True, exist_ok=True)
    for number in range(SPANS):
        start = number * split.tokens // SPANS
        # A tenth more: text that is encoded again may take fewer tokens.
        ids = split.read(start, min(start + length + length // 10, split.tokens))
        (texts / f"{number}.txt").write_text(tokenizer.decode(ids.tolist()), encoding="utf-8")
    return prepare([texts], folder / "data", tokenizer, valid_fraction=0.0)


def student(
    data: PreparedData,
    logits: TeacherLogits,
    weight: float,
    seed: int,
    text: HeldOut,
    arguments: argparse.Namespace,
) -> Run:
    """Train one and measure it. weight 0: without a teacher."""
    values = {
        "data": data.folder,
        "output": arguments.folder / f"student-{weight:g}-{seed}",
        "model_size": arguments.size,
        "batch_size": BATCH,
        "seq_len": SEQ_LEN,
        "max_steps": arguments.steps,
        "optimizer.name": "muon",
        "seed": seed,
        "loss": "chunked",
        "evaluation.every": 0,
        "evaluation.sample_tokens": 0,
        "checkpoint.every": 0,
        "resume": "never",
        "device": "cpu",
    }
    if weight:
        values |= {"distill.logits": logits.folder, "distill.weight": weight}
    began = time.process_time()
    result = train(from_values(values))
    cpu_s = time.process_time() - began
    found = Run(measure(Llama.from_folder(result.model), text), cpu_s)
    sys.stderr.write(f"weight {weight:g} seed {seed}: {found.bits:.4f} bits a byte, {cpu_s:.0f} CPU s\n")
    return found


def measure(model: Llama, text: HeldOut) -> float:
    """Bits per byte."""
    return bits_per_byte(model, text, BATCH, Precision("fp32", ""))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="prepared data with a validation part")
    parser.add_argument("--teacher", type=Path, required=True, help="a model folder with its tokenizer")
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder to work in")
    parser.add_argument("--size", default="nano", help="of the student (default: nano)")
    parser.add_argument("--steps", type=int, default=320)
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.5, 0.9])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--held-out-tokens", type=int, default=32_768)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
