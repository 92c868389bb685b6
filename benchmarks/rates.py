"""What a default of `train` is worth: runs of the same tokens, by steps, on Machado with two works held out.

    python benchmarks/rates.py [--trials NAME...]  # trials of TRIALS; a line of JSON each
    python benchmarks/rates.py --write RUNS.jsonl  # those lines as the table of docs/benchmarks.md

The runs are counted in steps, so that a busy machine changes none of them; the process's CPU seconds stand
beside. One thread. Data as benchmarks/learning.py makes them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from learning import make_data
from machine import facts
from results import table, write_section

HELD_OUT_TOKENS = 88_000
BASE: dict[str, Any] = {
    "model_size": "nano",
    "model.num_kv_heads": 1,
    "seq_len": 256,
    "batch_size": 4,
    "tokens_per_step": 4096,
    "max_steps": 80,
    "optimizer.name": "muon",
    "optimizer.learning_rate": 3e-3,
    "optimizer.momentum_warmup_steps": 0,
    "schedule.kind": "wsd",
    "schedule.warmup_steps": 10,
    "schedule.cooldown_fraction": 0.5,
    "device": "cpu",
    "precision": "fp32",
    "evaluation.every": 0,
    "evaluation.tokens": 4096,
    "evaluation.sample_tokens": 0,
    "checkpoint.every": 0,
    "seed": 1,
}
"""What each trial changes."""
SHAPES = {"2x64": (2, 64, 160), "2x128": (2, 128, 352), "3x192": (3, 192, 512), "4x256": (4, 256, 672)}
"""Name -> layers, width, width of the feed-forward."""
SMALL_STEPS = {"tokens_per_step": 1024, "max_steps": 320}
RISING = {"optimizer.momentum_start": 0.85}
TRIALS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"{shape} muon {rate:g}": (shape, {"optimizer.learning_rate": rate})
        for shape in SHAPES
        for rate in (1.5e-3, 3e-3, 6e-3, 1.2e-2)
    },
    "adamw 1.2e-3, cosine to a tenth": (
        "3x192",
        {"optimizer.name": "adamw", "optimizer.learning_rate": 1.2e-3, "schedule.kind": "cosine"},
    ),
    "adamw 3e-3": ("3x192", {"optimizer.name": "adamw"}),
    "cooldown of 0.2": ("3x192", {"schedule.cooldown_fraction": 0.2}),
    "momentum rises over 80 steps": ("3x192", {**RISING, "optimizer.momentum_warmup_steps": 80}),
    **{f"1,024 tokens a step, seed {seed}": ("3x192", {**SMALL_STEPS, "seed": seed}) for seed in (1, 2)},
    **{
        f"1,024 tokens a step, momentum rises over 160 steps, seed {seed}": (
            "3x192",
            {**SMALL_STEPS, **RISING, "optimizer.momentum_warmup_steps": 160, "seed": seed},
        )
        for seed in (1, 2)
    },
}
"""Name -> shape, and what is changed."""


def main() -> None:
    arguments = _arguments()
    if arguments.write is not None:
        write_section("rates", report([json.loads(line) for line in arguments.write.open(encoding="utf-8")]))
        return
    data = make_data(arguments.corpus, arguments.folder)
    for name in arguments.trials:
        print(json.dumps(run(name, data), ensure_ascii=False), flush=True)


def run(name: str, data: Path) -> dict[str, Any]:
    """Train one trial; what it came to."""
    import torch

    from ptbr_slm.model import Llama
    from ptbr_slm.train.config_file import from_values
    from ptbr_slm.train.run import train

    torch.set_num_threads(1)
    shape, changes = TRIALS[name]
    layers, width, inner = SHAPES[shape]
    own = {"model.num_layers": layers, "model.hidden_size": width, "model.num_heads": width // 64,
           "model.intermediate_size": inner}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        values = {**BASE, **own, **changes, "data": data / "train", "output": Path(folder) / "run"}
        began = time.process_time()
        done = train(from_values(values))
        seconds = time.process_time() - began
        model = Llama.from_folder(done.model)
    return {"name": name, "parameters": model.config.num_parameters, "bits_per_byte": measure(model, data),
            "cpu_seconds": round(seconds, 1)}  # fmt: skip


def measure(model: Any, folder: Path) -> float:
    """Bits per byte on an even half of the held-out works."""
    from ptbr_slm.data.prepared import PreparedData
    from ptbr_slm.eval.bits import held_out_windows
    from ptbr_slm.train.evaluate import bits_per_byte
    from ptbr_slm.train.planning.precision import Precision

    data = PreparedData.open(folder / "held-out")
    text = held_out_windows(data.split("train"), data.load_tokenizer(), 256, HELD_OUT_TOKENS)
    assert text is not None
    return round(bits_per_byte(model, text, 32, Precision("fp32", "")), 4)


def report(runs: list[dict[str, Any]]) -> str:
    """The section of docs/benchmarks.md."""
    rows = [
        [one["name"], f"{one['parameters'] / 1e6:.2f}M", f"{one['bits_per_byte']:.3f}",
         f"{one['cpu_seconds']:.0f}"]
        for one in runs
    ]  # fmt: skip
    header = ["trial", "parameters", "bits per byte", "CPU seconds"]
    command = f"`python benchmarks/rates.py {' '.join(sys.argv[1:])}`"
    return "\n\n".join([command, facts(("torch", "numpy"), 1), table(header, rows)])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", nargs="+", choices=TRIALS, default=list(TRIALS))
    parser.add_argument("--corpus", type=Path, default=Path("../shared/corpus/machado"))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ptbr-slm-learning")
    parser.add_argument("--write", type=Path, metavar="RUNS.jsonl", help="into docs/benchmarks.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
