"""What `data.document_mask` brings and costs: bits per byte, and the time of a step.

    python benchmarks/document_mask.py TEXTS [--steps 600] [--seeds 2]

The quickstart's model (2.0M parameters, V = 4,096, Muon, seq_len 256) learns the same windows with and
without the mask, runs alternating. Two measures on the held-out documents: windows of text end to end without
a mask (what `train` reports), and each document by itself (with the mask). The steps of both kinds are timed
in turn in one process, in CPU time.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from results import table

from ptbr_slm.cli.quickstart import RECIPE, VOCAB_SIZE
from ptbr_slm.data.pipeline import prepare, read_documents
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.model import IGNORE, Llama
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.batches import MicroBatch, random_batch
from ptbr_slm.train.config_file import from_values
from ptbr_slm.train.optim import build_optimizer
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.train.run import train
from ptbr_slm.train.step import optimizer_step

FP32 = Precision("fp32", "")
CPU = torch.device("cpu")


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = _data(arguments.texts, Path(folder))
        split = data.split("train")
        print(f"{split.documents} documents of {split.tokens / split.documents:.0f} tokens in the mean\n")
        found: dict[tuple[bool, int], tuple[float, float]] = {}
        for seed in range(arguments.seeds):
            for mask in (False, True):
                found[mask, seed] = _run(data, Path(folder), mask, seed, arguments.steps)
                print(f"mask {mask}, seed {seed}: {found[mask, seed]}", flush=True)
    rows = [
        [str(seed), *(f"{found[mask, seed][kind]:.4f}" for kind in (0, 1) for mask in (False, True))]
        for seed in range(arguments.seeds)
    ]
    header = ["seed", "windows, without", "windows, with", "documents, without", "documents, with"]
    print("\n" + table(header, rows))
    print("\n" + _times())


def _data(texts: list[Path], folder: Path) -> PreparedData:
    tokenizer = Tokenizer.train((document.text for document in read_documents(texts)), VOCAB_SIZE)
    return prepare(texts, folder / "data", tokenizer, valid_fraction=0.05, paragraph_documents=True)


def _run(data: PreparedData, folder: Path, mask: bool, seed: int, steps: int) -> tuple[float, float]:
    """Bits per byte of the held-out documents: in windows end to end, and each by itself."""
    output = folder / f"run-{mask}-{seed}"
    values = {
        **RECIPE, "data": data.folder, "output": output, "seed": seed, "max_steps": steps, "device": "cpu",
        "data.document_mask": mask, "checkpoint.every": 0, "evaluation.every": 0,
        "evaluation.sample_tokens": 0,
    }  # fmt: skip
    result = train(from_values(values))
    assert result.bits_per_byte is not None
    return result.bits_per_byte, _each_alone(Llama.from_folder(output / "final").eval(), data)


@torch.no_grad()
def _each_alone(model: Llama, data: PreparedData) -> float:
    """Bits per byte of the same part with the mask: no document sees the one before it."""
    split, tokenizer, length = data.split("valid"), data.load_tokenizer(), RECIPE["seq_len"]
    starts = np.arange(0, split.tokens - length - 1, length)
    windows = np.stack([split.read(int(start), int(start) + length + 1) for start in starts])
    batch = MicroBatch.of_windows(windows, split.document_ids(starts, length + 1))
    targets = batch.targets.copy()
    targets[np.isin(targets, list(tokenizer.special_ids))] = IGNORE
    size = int(tokenizer.target_bytes(windows)[targets != IGNORE].sum())
    nats = 0.0
    for part in MicroBatch(batch.tokens, targets, batch.document_ids).split(8):
        there = part.to(CPU)
        nats += float(model.loss_sum(there.tokens, there.targets, there.document_ids))
    return nats / math.log(2) / size


def _times() -> str:
    """Milliseconds of a step without and with the mask, and the median of their ratio."""
    rows = []
    for seq_len, batch_size in ((256, 4), (1024, 2)):
        config = from_values({**RECIPE, "data": ".", "output": ".", "seq_len": seq_len, "device": "cpu"})
        model = Llama(config.new_model(VOCAB_SIZE, 0, 1, 2)).initialize(0).train()
        optimizer = build_optimizer(model, config.with_defaults(2_000_000).optimizer)
        plain = random_batch(VOCAB_SIZE, batch_size, seq_len)
        masked = random_batch(VOCAB_SIZE, batch_size, seq_len, documents=8)
        took: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(15):
            for mask, batch in ((False, plain), (True, masked)):
                began = time.process_time()
                optimizer_step(model, optimizer, [batch], precision=FP32, scaler=None, gradient_clip=1.0)
                took[mask].append(time.process_time() - began)
        ratio = statistics.median(b / a for a, b in zip(took[False][3:], took[True][3:], strict=True))
        rows.append(
            [f"{seq_len}", f"{batch_size}"]
            + [f"{1000 * statistics.median(took[mask][3:]):.0f}" for mask in (False, True)]
            + [f"{ratio:.2f}"]
        )
    return table(["seq_len", "batch_size", "ms without", "ms with", "ratio"], rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
