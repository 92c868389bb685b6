"""What a longer context is worth: how well models predict tokens by how far into a text they stand.

    python benchmarks/long_context.py --data HELD NAME=MODEL... --length 1024

HELD: prepared works that no model saw. Each work is read in windows of `--length` tokens, end to end, by
models whose context is that long; by one with a shorter context in windows that overlap by half, the most it
can do. The same tokens count for all. In Markdown: bits per token by place in the window.
"""

from __future__ import annotations

import argparse
import math
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from machine import facts
from results import command, table

from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.model import Llama

Rows = npt.NDArray[np.int64]


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    windows = works(PreparedData.open(arguments.data), arguments.length)
    bounds = [0, *(arguments.length >> shift for shift in range(3, -1, -1))]
    rows = []
    for name, path in (entry.split("=", 1) for entry in arguments.models):
        model = Llama.from_folder(Path(path)).eval()
        nats = token_nats(model, windows)  # (N, length)
        bits = [nats[:, start:stop].mean() / math.log(2) for start, stop in pairwise(bounds)]
        context, theta = model.config.max_seq_len, model.config.rope_theta
        rows.append([name, f"{context}", f"{theta:,.0f}", *(f"{value:.3f}" for value in bits),
                     f"{nats.mean() / math.log(2):.3f}"])  # fmt: skip
        sys.stderr.write(f"{name}: {rows[-1]}\n")
    places = [f"{start}-{stop - 1}" for start, stop in pairwise(bounds)]
    text = "\n\n".join(
        [
            f"`{command()}`",
            facts(("torch", "numpy"), arguments.threads),
            f"{len(windows)} windows of {arguments.length} tokens; bits per token by place in the window.",
            table(["", "context", "RoPE base", *places, "all"], rows),
        ]
    )
    sys.stdout.write(text + "\n")


def works(data: PreparedData, length: int) -> Rows:
    """(N, length + 1): windows end to end within each document of the training part; the rest is left out."""
    split = data.split("train")
    offsets = map(int, split.document_offsets())
    found = [
        split.read(start, start + length + 1)
        for begin, end in pairwise(offsets)
        for start in range(begin, end - length, length)
    ]
    return np.stack(found).astype(np.int64)


@torch.no_grad()
def token_nats(model: Llama, windows: Rows) -> npt.NDArray[np.float64]:
    """(N, length) nats of each target."""
    length, context = windows.shape[1] - 1, model.config.max_seq_len
    out = np.empty((len(windows), length))
    half = context // 2
    starts = [0] if context >= length else list(range(0, length - half, half))
    for row, window in enumerate(torch.from_numpy(windows)):
        for start in starts:
            stop = min(length, start + context)
            logits = model(window[None, start:stop])[0]  # (T, V)
            nats = F.cross_entropy(logits, window[start + 1 : stop + 1], reduction="none")
            skip = half if start else 0  # those were counted in the window before
            out[row, start + skip : stop] = nats[skip:].numpy()
    return out


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
