"""How far a fixed time on a CPU takes a new model: bits per byte on works it never saw, ours against nanoGPT.

    python benchmarks/learning.py --minutes 10            # the table on the terminal
    python benchmarks/learning.py --minutes 10 --write    # and into docs/benchmarks.md
    python benchmarks/learning.py --entrants ptbr-slm --set optimizer.weight_decay=0.3    # a trial of ours

Needs `pip install -e '.[train]'`, a C++ compiler and the works of Machado de Assis as text files (--corpus).
Every run is a process of its own; with --seeds they take turns. A run that is done is a line of runs.jsonl in
--folder and not done again. docs/benchmarks.md says what is measured, and how.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nanogpt
from alone import alone
from machine import facts
from results import spread, table, write_section

from ptbr_slm.cli.quickstart import RECIPE, VOCAB_SIZE

HELD_OUT = ("domCasmurro", "historiasMeiaNoite")
"""Works (file names) that are left out of training: a novel and a book of stories."""
OURS: dict[str, Any] = {
    **RECIPE,
    "compile": True,
    "device": "cpu",
    "precision": "auto",
    "checkpoint.every": 0,
    "evaluation.every": 0,
    "evaluation.tokens": 4096,
    "evaluation.sample_tokens": 0,
}
"""The quickstart's recipe, compiled, in bf16 where the processor has units for it; seed and time are
of the command line."""
FP32 = "ptbr-slm, fp32"
"""What it comes to on a processor without units for bf16: of the first seed only."""
BASELINES = {
    "readme-shape": nanogpt.Shape(layers=4, heads=4, width=128, block_size=64, batch_size=12),
    "our-budget": nanogpt.Shape(layers=3, heads=3, width=192, block_size=256, batch_size=4),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One run."""

    entrant: str
    folder: Path
    """Prepared data: `train` and `held-out` below it."""
    seconds: float
    seed: int
    threads: int
    changed: tuple[str, ...] = ()
    """`KEY=VALUE` of `--set`: what ours does otherwise than `OURS` says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What it came to."""

    parameters: int
    context: int
    tokens_per_step: int
    steps: int
    seconds: float
    """Of training, as measured: a step that had begun is finished."""
    precision: str
    bits_per_byte: float
    """On all of the held-out works, in windows of `context` tokens."""


def main() -> None:
    arguments = _arguments()
    about = facts(("torch", "numpy"), arguments.threads)
    folder = make_data(arguments.corpus, arguments.folder)
    results: dict[str, list[Result]] = {name: [] for name in arguments.entrants}
    for seed in range(1, arguments.seeds + 1):
        for name in arguments.entrants:
            if name == FP32 and seed > 1:
                continue
            sys.stderr.write(f"seed {seed}: {name}\n")
            changed = tuple(arguments.set) if name.startswith("ptbr-slm") else ()
            job = Job(entrant=name, folder=folder, seconds=60 * arguments.minutes, seed=seed,
                      threads=arguments.threads, changed=changed)  # fmt: skip
            results[name].append(result_of(job))
    text = report(about, results, arguments.minutes)
    sys.stdout.write(text + "\n")
    if arguments.write:
        write_section("learning", text)


def result_of(job: Job) -> Result:
    """Of this run: what runs.jsonl says, or it is done now."""
    key = [job.entrant, job.seconds, job.seed, job.threads, *job.changed]
    file = job.folder / "runs.jsonl"
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        told = json.loads(line)
        if told["run"] == key:
            return Result(**told["result"])
    run: Callable[[Job], Result] = ours if job.entrant.startswith("ptbr-slm") else baseline
    result = alone(run, job)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"run": key, "result": asdict(result)}) + "\n")
    return result


def ours(job: Job) -> Result:
    """`ptbr_slm.train.run.train`, its schedule on the clock, and the model folder that it leaves."""
    import torch

    from ptbr_slm.model import Llama
    from ptbr_slm.train.config_file import load_config
    from ptbr_slm.train.planning.precision import choose_precision
    from ptbr_slm.train.run import train

    torch.set_num_threads(job.threads)
    with tempfile.TemporaryDirectory() as folder:
        values = {**OURS, "data": job.folder / "train", "output": Path(folder) / "run", "seed": job.seed,
                  "schedule.minutes": job.seconds / 60}  # fmt: skip
        if job.entrant == FP32:
            values["precision"] = "fp32"
        config = load_config(flags=values, sets=job.changed)
        done = train(config)
        model = Llama.from_folder(done.model)
        return Result(
            parameters=model.config.num_parameters,
            context=config.seq_len,
            tokens_per_step=config.step_tokens,
            steps=done.step,
            seconds=done.seconds,
            precision=choose_precision("cpu", None, config.precision).name,
            bits_per_byte=measure(model, job.folder, config.seq_len),
        )


def baseline(job: Job) -> Result:
    """nanoGPT, on the same tokens for the same time."""
    import torch

    from ptbr_slm.data.prepared import PreparedData

    shape = BASELINES[job.entrant]
    torch.set_num_threads(job.threads)
    data = PreparedData.open(job.folder / "train")
    split = data.split("train")
    tokens = torch.from_numpy(split.read(0, split.tokens))
    began = time.monotonic()
    model, steps = nanogpt.train(shape, tokens, data.vocab_size, job.seconds, job.seed)
    return Result(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        context=shape.block_size,
        tokens_per_step=shape.batch_size * shape.block_size,
        steps=steps,
        seconds=time.monotonic() - began,
        precision="fp32",
        bits_per_byte=measure(model, job.folder, shape.block_size),
    )


def measure(model: Any, folder: Path, context: int) -> float:
    """Bits per byte on the whole of the held-out works."""
    from ptbr_slm.data.prepared import PreparedData
    from ptbr_slm.eval.bits import held_out_windows
    from ptbr_slm.train.evaluate import bits_per_byte
    from ptbr_slm.train.planning.precision import Precision

    data = PreparedData.open(folder / "held-out")
    split = data.split("train")
    text = held_out_windows(split, data.load_tokenizer(), context, split.tokens + context)
    assert text is not None
    return bits_per_byte(model, text, 8192 // context, Precision("fp32", ""))


def make_data(corpus: Path, folder: Path) -> Path:
    """Tokenizer and tokens of the works that are trained on, tokens of those held out; made once."""
    from ptbr_slm.data.pipeline import prepare, read_documents
    from ptbr_slm.tokenizer import Tokenizer

    if (folder / "held-out" / "index.json").exists():
        return folder
    works = sorted(corpus.rglob("*.txt"))
    held = [work for work in works if work.stem in HELD_OUT]
    if len(held) != len(HELD_OUT):
        raise SystemExit(f"{corpus} has no {' or '.join(HELD_OUT)}: say --corpus FOLDER")
    trained = [work for work in works if work.stem not in HELD_OUT]
    tokenizer = Tokenizer.train((document.text for document in read_documents(trained)), VOCAB_SIZE)
    prepare(trained, folder / "train", tokenizer, valid_fraction=0.0)
    prepare(held, folder / "held-out", tokenizer, valid_fraction=0.0)
    return folder


def report(about: str, results: dict[str, list[Result]], minutes: float) -> str:
    """The section of docs/benchmarks.md."""
    header = ["", "precision", "parameters", "tokens a step", "context", "steps", "tokens/s", "bits per byte"]
    rows = []

    def shown(values: list[float], digits: int = 0) -> str:
        return spread(values, digits) if len(values) > 1 else f"{values[0]:.{digits}f}"

    for name, runs in results.items():
        first = runs[0]
        speed = [run.steps * run.tokens_per_step / run.seconds for run in runs]
        rows.append([
            f"nanoGPT, {name}" if name in BASELINES else name, first.precision,
            f"{first.parameters / 1e6:.2f}M", str(first.tokens_per_step), str(first.context),
            shown([float(run.steps) for run in runs]), shown(speed),
            shown([run.bits_per_byte for run in runs], 3),
        ])  # fmt: skip
    middle = {name: statistics.median(run.bits_per_byte for run in runs) for name, runs in results.items()}
    best = min((name for name in middle if name in BASELINES), key=lambda name: middle[name], default="")
    verdicts = [
        f"{name} / nanoGPT, {best}, the best baseline run: {middle[name] / middle[best]:.3f}x the bits "
        f"per byte ({100 * (1 - middle[name] / middle[best]):.1f} % lower)."
        for name in middle
        if best and name not in BASELINES
    ]
    seeds = max(map(len, results.values()))
    return "\n\n".join([
        f"`python benchmarks/learning.py {' '.join(sys.argv[1:])}`", about,
        f"{minutes:g} minutes of training each, {seeds} {'seed' if seeds == 1 else 'seeds'}.",
        table(header, rows), *verdicts,
    ])  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, for each run")
    parser.add_argument("--seeds", type=int, default=1)
    entrants = ["ptbr-slm", FP32, *BASELINES]
    parser.add_argument("--entrants", nargs="+", default=entrants, choices=entrants)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of ours; repeatable")
    parser.add_argument("--corpus", type=Path, default=Path("../shared/corpus/machado"))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ptbr-slm-learning")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
