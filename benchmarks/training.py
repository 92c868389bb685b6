"""Training speed and peak memory of our trainer against transformers' Trainer and litgpt, in fp32 on a CPU.

    python benchmarks/training.py            # the table on the terminal
    python benchmarks/training.py --write    # and into docs/benchmarks.md

Needs the environment of benchmarks/requirements.txt. docs/benchmarks.md says what is measured, and how.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from alone import alone
from machine import facts
from results import command, progress, spread, table, write_section
from trainers import Job, Run, litgpt, ptbr_slm, transformers

PACKAGES = ("torch", "transformers", "accelerate", "litgpt", "lightning")
WARM_UP = 2
"""Steps that are not counted: the first ones fault memory in and make the optimizer's state."""
SHAPES = {"mini": (4, 256, 10), "85m": (2, 256, 7)}
"""Size -> batch_size, seq_len, steps."""
TRAINERS = (ptbr_slm, transformers, litgpt)


def main() -> None:
    arguments = _arguments()
    about = facts(PACKAGES, arguments.threads)
    data = make_data(arguments.folder / "training-data")
    rows = []
    ratios = []
    for size in arguments.sizes:
        batch_size, seq_len, steps = SHAPES[size]
        job = Job(
            size=size,
            data=data,
            batch_size=batch_size,
            seq_len=seq_len,
            steps=steps,
            threads=arguments.threads,
            cpu_time=arguments.cpu_time,
        )
        runs = alternate(job, arguments.rounds)
        rows += [row(name, job, runs[name]) for name in runs]
        ratios += comparisons(job, runs)
    speed_of = "tokens a CPU second" if arguments.cpu_time else "tokens/s"
    header = [
        "", "parameters", "batch x seq_len", speed_of, "peak RSS, MB", "above the imports, MB",
    ]  # fmt: skip
    text = "\n\n".join([f"`{command()}`", about, f"{arguments.rounds} rounds.", table(header, rows), *ratios])
    sys.stdout.write(text + "\n")
    if arguments.write:
        write_section("training", text)


def make_data(folder: Path) -> Path:
    """A prepared folder of invented words with a vocabulary of 32,000, made once."""
    from ptbr_slm.bench.synthetic import invented_words
    from ptbr_slm.data.pipeline import prepare
    from ptbr_slm.tokenizer import Tokenizer

    if folder.exists():
        return folder
    progress("making data")
    words = folder.parent / "invented.jsonl"
    words.parent.mkdir(parents=True, exist_ok=True)
    lines = list(invented_words(150_000))
    pages = [" ".join(lines[start : start + 50]) for start in range(0, len(lines), 50)]
    words.write_text("".join(json.dumps({"text": page}) + "\n" for page in pages), encoding="utf-8")
    prepare([words], folder, Tokenizer.train(lines, 32_000))
    return folder


def alternate(job: Job, rounds: int) -> dict[str, list[Run]]:
    """`rounds` runs of each trainer, taking turns; the first to go changes from round to round."""
    runs: dict[str, list[Run]] = {trainer.__name__: [] for trainer in TRAINERS}
    for index in range(rounds):
        for trainer in (*TRAINERS[index % 3 :], *TRAINERS[: index % 3]):
            progress(f"{job.size}: round {index + 1} of {rounds}, {trainer.__name__}")
            runs[trainer.__name__].append(alone(trainer, job))
    counts = {run.parameters for done in runs.values() for run in done}
    if len(counts) != 1:
        raise RuntimeError(f"not the same architecture: {counts} parameters")
    return runs


def row(name: str, job: Job, runs: list[Run]) -> list[str]:
    """One line of the table."""
    above = statistics.median(run.peak_bytes - run.imports_bytes for run in runs)
    return [
        f"{job.size} {name.replace('_', '-')}",
        f"{runs[0].parameters / 1e6:.1f}M",
        f"{job.batch_size} x {job.seq_len}",
        spread([speed(job, run) for run in runs]),
        f"{statistics.median(run.peak_bytes for run in runs) / 1e6:.0f}",
        f"{above / 1e6:.0f}",
    ]


def comparisons(job: Job, runs: dict[str, list[Run]]) -> list[str]:
    """Ours against each of theirs, as ratios of the medians in the table."""
    ours, *theirs = (trainer.__name__ for trainer in TRAINERS)

    def fast(name: str) -> float:
        return statistics.median(speed(job, run) for run in runs[name])

    def memory(name: str) -> float:
        return statistics.median(run.peak_bytes for run in runs[name])

    return [
        f"{job.size}: ptbr-slm / {name}: tokens/s {fast(ours) / fast(name):.2f}x, "
        f"peak memory {memory(ours) / memory(name):.2f}x."
        for name in theirs
    ]


def speed(job: Job, run: Run) -> float:
    """Tokens/s of a run: by its median step."""
    return job.tokens_per_step / statistics.median(run.step_seconds(WARM_UP))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--folder", type=Path, default=Path("models/benchmark"), help="where the data is made and kept"
    )
    parser.add_argument(
        "--cpu-time", action="store_true", help="count CPU seconds (with --threads 1, on a busy machine)"
    )
    parser.add_argument("--write", action="store_true", help="write the table into docs/benchmarks.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
