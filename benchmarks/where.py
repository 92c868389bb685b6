"""Where a decode step's time goes, node by node, and how fast each kind of product reads its weights.

    python benchmarks/where.py --size 85m            # the table on the terminal
    python benchmarks/where.py --size 85m --write    # and into docs/benchmarks.md

ONNX Runtime's own profiler, on the int4 export of a random model. It adds a few microseconds to every node,
so small nodes look larger than they are, and the sum is above the step's time without it, given beside it.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from arguments import speed_parser
from levers import Contestant, Variant, build
from machine import facts, read_bandwidth
from ptbr_slm_export.quantization.recipe import RECIPES
from results import command, table, write_section

from ptbr_slm.bench.synthetic import write_random_model
from ptbr_slm.config import model_config

KINDS = {
    "attention": "attention, rotation and cache",
    "attention_norm": "norms",
    "feed_forward_norm": "norms",
    "norm": "norms",
    "silu": "activation and gate",
    "gated": "activation and gate",
    "gate": "gate",
    "up": "up",
    "down": "down",
    "qkv": "query, key, value",
    "attention_out": "attention out",
    "head": "head",
}
"""Last part of a node's name -> the row it counts in; all others are "the rest"."""
STEPS = 60


def main() -> None:
    arguments = _arguments()
    about = facts(("onnxruntime", "numpy"), arguments.threads)
    config = model_config(arguments.size)
    prompt = np.random.default_rng(0).integers(5, config.vocab_size, arguments.prompt_tokens)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        write_random_model(model, config)
        variant = Variant(name="kept", recipe=RECIPES["int4"], threads=arguments.threads)
        graph = build(variant, model, Path(folder) / "export")
        sizes = weight_bytes(graph)
        plain = Contestant(variant, graph, config, prompt)
        plain.time(plain.long)
        step = statistics.median(plain.time(plain.step) for _ in range(STEPS)) * 1e6
        del plain
        spent = profile(variant, graph, config, prompt, Path(folder))
    bandwidth = read_bandwidth(arguments.threads)
    total = sum(spent.values())
    rows = []
    for kind, micros in sorted(spent.items(), key=lambda item: -item[1]):
        rate = f"{sizes[kind] / micros / 1e3:.1f}" if kind in sizes else ""
        rows.append([kind, f"{micros:.0f}", f"{100 * micros / total:.0f} %", rate])
    rows.append(["all nodes", f"{total:.0f}", "100 %", f"{sum(sizes.values()) / total / 1e3:.1f}"])
    text = "\n\n".join(
        [
            f"`{command()}`",
            about,
            f"{arguments.size}, int4 as exported, after {arguments.prompt_tokens} tokens: medians of {STEPS} "
            f"steps. Without the profiler a step takes {step:.0f} us. The memory gives "
            f"{bandwidth / 1e9:.1f} GB/s (measured).",
            table(["", "us a token", "share", "weights, GB/s"], rows),
        ]
    )
    sys.stdout.write(text + "\n")
    if arguments.write:
        write_section(f"where-{arguments.size}", text)


def profile(variant: Variant, graph: Path, config: Any, prompt: Any, folder: Path) -> dict[str, float]:
    """Microseconds a token by kind of node: the sum over the nodes of each one's median."""
    contestant = Contestant(variant, graph, config, prompt, profile=folder / "profile")
    contestant.time(contestant.long)
    for _ in range(STEPS):
        contestant.time(contestant.step)
    events = json.loads(Path(contestant.session.end_profiling()).read_text())
    times: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"].removesuffix("_kernel_time")].append(event["dur"])
    spent: dict[str, float] = defaultdict(float)
    for name, durations in times.items():
        spent[kind_of(name)] += statistics.median(durations[-STEPS:])
    return spent


def weight_bytes(graph: Path) -> dict[str, int]:
    """Bytes of the weights that a token is multiplied with, by kind of node."""
    body = onnx.load(graph, load_external_data=False).graph
    bytes_of = {tensor.name: _nbytes(tensor) for tensor in body.initializer}
    sizes: dict[str, int] = defaultdict(int)
    for node in body.node:
        if node.op_type == "MatMulNBits":
            sizes[kind_of(node.name)] += sum(bytes_of.get(name, 0) for name in node.input)
    return sizes


def kind_of(name: str) -> str:
    """The row of a node, by the last part of its name."""
    if name.startswith("head."):
        return "best logits scored again"
    return KINDS.get(re.sub(r"^layers\.\d+\.", "", name), "the rest")


def _nbytes(tensor: onnx.TensorProto) -> int:
    return int(np.prod(tensor.dims)) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def _arguments() -> argparse.Namespace:
    parser = speed_parser(__doc__)
    parser.add_argument("--prompt-tokens", type=int, default=256)
    return parser.parse_args()


if __name__ == "__main__":
    main()
