"""What a session's end is worth: the raw weights of a stable phase, their average, and a cooled branch.

    python benchmarks/averaging.py --steps 4000            # the table on the terminal
    python benchmarks/averaging.py --steps 4000 --write    # and into docs/benchmarks.md

One run at a stable rate leaves a checkpoint every `--every` steps. At each of `--ends`, shares of it: the
bits per byte of the checkpoint there, of means of those before it, and of a branch that left the stable phase
earlier and whose rate fell to zero by then, so that both have read as many tokens. Needs the works of Machado
de Assis as text files (--corpus); the held-out works are those of `benchmarks/learning.py`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from learning import OURS, make_data, measure
from machine import facts
from results import table, write_section

WINDOWS = (0.05, 0.1, 0.2, 0.4)
"""Shares of the steps until the end whose checkpoints are averaged."""
COOLDOWN = 0.2
"""Share of the steps until the end in which a branch cools down, as `--cooldown session` does."""


def main() -> None:
    arguments = _arguments()
    about = facts(("torch", "numpy"), arguments.threads)
    folder = make_data(arguments.corpus, arguments.folder)
    import torch

    torch.set_num_threads(arguments.threads)
    stable = folder / f"stable-{arguments.optimizer}-{arguments.steps}"
    _train(folder, stable, arguments, arguments.steps, 0.0)
    rows = [_row(folder, stable, arguments, round(share * arguments.steps)) for share in arguments.ends]
    header = [
        "steps",
        "raw",
        *(f"mean of the last {100 * w:g} %" for w in WINDOWS),
        "cooled branch",
        "its mean",
    ]
    text = "\n\n".join([
        f"`python benchmarks/averaging.py {' '.join(sys.argv[1:])}`", about,
        f"{arguments.optimizer}, a checkpoint every {arguments.every} steps of 1,024 tokens, bits per byte.",
        table(header, rows),
    ])  # fmt: skip
    sys.stdout.write(text + "\n")
    if arguments.write:
        write_section("averaging", text)


def _train(
    folder: Path, run: Path, arguments: argparse.Namespace, steps: int, cooldown: float, **more: Any
) -> None:
    from ptbr_slm.train.config_file import from_values
    from ptbr_slm.train.run import train

    rate = {"muon": 3e-3, "adamw": 2e-3}[arguments.optimizer]
    values = {**OURS, "data": folder / "train", "output": run, "max_steps": steps, "batch_size": 4,
              "optimizer.name": arguments.optimizer, "optimizer.learning_rate": rate,
              "schedule.cooldown_fraction": cooldown, "checkpoint.every": arguments.every,
              "checkpoint.keep": 10_000, "seed": arguments.seed, **more}  # fmt: skip
    train(from_values(values))


def _row(folder: Path, stable: Path, arguments: argparse.Namespace, end: int) -> list[str]:
    """One end of a session: bits per byte of everything that it could leave."""
    every = arguments.every
    begin = round((1 - COOLDOWN) * end / every) * every
    branch = folder / f"{stable.name}-branch-{end}"
    _train(folder, branch, arguments, end, (end - begin) / (end - 20),
           resume=str(_checkpoint(stable, begin)), allow_config_change=True)  # fmt: skip
    figures = [_bits(folder, stable, [end])]
    for window in WINDOWS:
        figures.append(_bits(folder, stable, _steps(end, window * end, every)))
    cooled = [_bits(folder, branch, [end]), _bits(folder, branch, _steps(end, 0.1 * end, every))]
    return [str(end), *(f"{bits:.4f}" for bits in figures + cooled)]


def _steps(end: int, count: float, every: int) -> list[int]:
    return list(range(end, max(0, round(end - count)), -every))


def _checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def _bits(folder: Path, run: Path, steps: list[int]) -> float:
    """Of the mean of the weights after these steps."""
    import torch

    from ptbr_slm.model import Llama

    first, *others = (Llama.from_folder(_checkpoint(run, step)) for step in steps)
    with torch.no_grad():
        for other in others:
            for mine, theirs in zip(first.parameters(), other.parameters(), strict=True):
                mine.add_(theirs)
        for mine in first.parameters():
            mine.div_(len(steps))
    bits = measure(first, folder, 256)
    sys.stderr.write(f"{run.name} {steps[0]} mean of {len(steps)}: {bits:.4f}\n")
    return bits


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--ends", type=float, nargs="+", default=[0.5, 1.0])
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--corpus", type=Path, default=Path("../shared/corpus/machado"))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ptbr-slm-learning")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
