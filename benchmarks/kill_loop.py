"""Kill a training run again and again at random moments, resume it each time, compare with one never killed.

    python benchmarks/kill_loop.py [--kills 30] [--seed 0] [--folder DIR] [--output FILE.md]

Uses real processes and SIGKILL. Prints (and with --output writes) a Markdown table: when each kill fell and
what it left behind; and the sha256 of the final weights of both runs. Exits with 1 where they differ.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ptbr_slm.data.pipeline import prepare
from ptbr_slm.storage.manifest import sha256_file
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.reporting.metrics import read_metrics

WORDS = """o rio corre devagar entre as pedras e a manhã começa com cheiro de café maria abriu a janela olhou
a rua molhada e decidiu que não iria à feira as crianças brincavam no quintal enquanto o avô contava histórias
do sertão e do mar a biblioteca ficou aberta até tarde havia silêncio lâmpadas e muitos livros"""


@dataclass(frozen=True)
class Kill:
    """One SIGKILL."""

    after_s: float
    """Seconds from the start of the process."""
    step: int
    """Last step that metrics.jsonl then knew."""
    complete: str
    """Name of the newest complete checkpoint, or `-`."""
    half: bool
    """Whether the kill fell into the writing of a checkpoint."""


def main() -> int:
    """Run the loop; the exit code."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--kills", type=int, default=30)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    options.add_argument("--output", type=Path, help="also write the table there")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        report, same = compare(chosen.folder or Path(temporary), chosen.kills, random.Random(chosen.seed))
    sys.stdout.write(report)
    if chosen.output:
        chosen.output.write_text(report, encoding="utf-8")
    return 0 if same else 1


def compare(folder: Path, kills: int, draw: random.Random) -> tuple[str, bool]:
    """(the Markdown report, whether both runs ended with the same weights)."""
    folder.mkdir(parents=True, exist_ok=True)
    data, steps = make_data(folder, draw), 25 * kills
    whole, killed = folder / "undisturbed", folder / "killed"
    began = time.monotonic()
    finish(start(data, whole, steps))
    seconds = time.monotonic() - began
    made = [kill_once(data, killed, steps, draw) for _ in range(kills)]
    finish(start(data, killed, steps))
    sums = [sha256_file(run / "final" / "model.safetensors") for run in (whole, killed)]
    losses = [logged(run) for run in (whole, killed)]
    same = sums[0] == sums[1] and losses[0] == losses[1]
    return render(made, sums, steps, seconds, losses[0] == losses[1]), same


def make_data(folder: Path, draw: random.Random) -> Path:
    """A small prepared corpus."""
    texts = [" ".join(draw.choices(WORDS.split(), k=400)) for _ in range(30)]
    for number, text in enumerate(texts):
        file = folder / "texts" / f"{number}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text + ".\n", encoding="utf-8")
    prepare([folder / "texts"], folder / "data", Tokenizer.train(texts, 300), valid_fraction=0.1)
    return folder / "data"


def start(data: Path, run: Path, steps: int) -> subprocess.Popen[bytes]:
    """A real training process, saving every other step."""
    settings = ["evaluation.sample_tokens=0", "evaluation.every=0", "model.num_layers=1"]
    command = [
        sys.executable, "-m", "ptbr_slm", "train", "--data", data, "--output", run, "--model-size", "nano",
        "--batch-size", "2", "--grad-accum", "2", "--seq-len", "32", "--max-steps", str(steps),
        "--save-every", "2", "--quiet", *(part for s in settings for part in ("--set", s)),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, env=environment)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Let it end well."""
    if process.wait() != 0:
        raise SystemExit(f"training exited with {process.returncode}")


def kill_once(data: Path, run: Path, steps: int, draw: random.Random) -> Kill:
    """Start or resume the run; SIGKILL at a random moment, 1 to 12 steps beyond the last kill."""
    target = last_step(run) + draw.randint(1, 12)
    began, process = time.monotonic(), start(data, run, steps)
    while process.poll() is None and last_step(run) < target:
        time.sleep(0.002)
    time.sleep(draw.uniform(0.0, 0.03))
    process.kill()
    if process.wait() == 0:
        raise SystemExit("the run ended before it was killed: make its steps slower or its kills fewer")
    complete = sorted(path.name for path in (run / "checkpoints").glob("step-*"))
    half = any((run / "checkpoints").glob(".tmp-*"))
    return Kill(time.monotonic() - began, last_step(run), complete[-1] if complete else "-", half)


def last_step(run: Path) -> int:
    """The last step in metrics.jsonl, 0 without one."""
    return max((record["step"] for record in read_metrics(run / "metrics.jsonl")[-1:]), default=0)


def logged(run: Path) -> list[tuple[int, float]]:
    """(step, loss) of every step in metrics.jsonl."""
    return [(r["step"], r["loss"]) for r in read_metrics(run / "metrics.jsonl") if r["event"] == "step"]


def render(kills: list[Kill], sums: list[str], steps: int, seconds: float, same_losses: bool) -> str:
    """The report in Markdown."""
    rows = "\n".join(
        f"| {number} | {kill.after_s:.1f} | {kill.step} | {kill.complete} | {'yes' if kill.half else ''} |"
        for number, kill in enumerate(kills, 1)
    )
    verdict = "identical" if sums[0] == sums[1] else "DIFFERENT"
    return (
        "| kill | after (s) | last step logged | newest complete checkpoint | while saving |\n"
        "|---|---|---|---|---|\n"
        f"{rows}\n\n"
        f"{len(kills)} kills over {steps} steps (undisturbed run: {seconds:.1f} s); "
        f"{sum(kill.half for kill in kills)} fell into the writing of a checkpoint.\n\n"
        f"- undisturbed: `{sums[0]}`\n- killed:      `{sums[1]}`\n- final weights: **{verdict}**; "
        f"losses in metrics.jsonl: **{'identical' if same_losses else 'DIFFERENT'}**\n"
    )


if __name__ == "__main__":
    sys.exit(main())
