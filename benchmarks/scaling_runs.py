"""Small runs for a scaling law: bits per byte of four sizes at three or four amounts of tokens.

    python benchmarks/scaling_runs.py --folder DIR      # makes the data, the runs and DIR/runs.jsonl

One run a size stays at its stable rate; from a checkpoint at 70 % of each amount of tokens a branch cools
down to zero (WSD: Hägele et al., 2024, arXiv:2405.18392), so that one run gives several points, each a
finished model. `benchmarks/scaling_law.py` fits the law. Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alone import alone

CORPUS = Path("../shared/corpus")
MODERN = ("copom-atas", "wikipedia-pt-sample", "tensorflow-docs-pt-br", "react-docs-pt-br", "rust-book-pt-br",
          "d2l-pt", "hf-course-pt")  # fmt: skip
HELD_WORK, HELD_EACH = "historiasMeiaNoite", 100
"""Held out: a whole book of Machado de Assis, and one in so many documents of the modern texts."""
VOCAB_SIZE, SEQ_LEN, SEQUENCES, SEED = 4096, 256, 4, 1
WARM_UP, STABLE = 50, 0.7
"""Steps of warm-up; share of a run before its cooldown."""
SHAPES: dict[str, dict[str, int]] = {
    "0.4M": {"hidden_size": 64, "num_layers": 3, "num_heads": 1, "num_kv_heads": 1, "intermediate_size": 192},
    "0.6M": {"hidden_size": 96, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 256},
    "1M": {"hidden_size": 128, "num_layers": 3, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 320},
    "2M": {"hidden_size": 192, "num_layers": 3, "num_heads": 3, "num_kv_heads": 1, "intermediate_size": 512},
    "4M": {"hidden_size": 256, "num_layers": 5, "num_heads": 4, "num_kv_heads": 1, "intermediate_size": 640},
}
MARKS = (360, 720, 1440, 2880)
"""Steps of the stable phase before each branch, in this order over all sizes: the grid is of use early."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A point of the grid, and where the data are."""

    folder: Path
    size: str
    mark: int
    threads: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One finished model."""

    size: str
    parameters: int
    """All weights, the tied embedding once."""
    tokens: int
    """That it was trained on, cooldown included."""
    bits_per_byte: float
    """On all of the held-out text."""
    learning_rate: float


def main() -> None:
    arguments = _arguments()
    make_data(arguments.corpus, arguments.folder)
    for mark in arguments.marks:
        for size in arguments.sizes:
            alone(run, Job(folder=arguments.folder, size=size, mark=mark, threads=arguments.threads))


def run(job: Job) -> None:
    """The stable run of a size up to `mark`, and the branch from there; its end is a line of runs.jsonl."""
    import torch

    torch.set_num_threads(job.threads)
    steps = round(job.mark / STABLE)
    tokens = steps * SEQUENCES * SEQ_LEN
    if (job.size, tokens) in {(point.size, point.tokens) for point in read_points(job.folder)}:
        return
    stable, output = job.folder / job.size, job.folder / f"{job.size}-{steps}"
    _train({**_settings(job, stable, job.mark, 0.0), "allow_config_change": True})
    start = output if (output / "checkpoints" / "latest").exists() else stable
    fraction = (steps - job.mark) / (steps - WARM_UP)
    resume = {"resume": str(start / "checkpoints" / f"step-{job.mark:08d}")} if start is stable else {}
    model = _train({**_settings(job, output, steps, fraction), **resume, "allow_config_change": True})
    point = _measured(job, model, tokens)
    with (job.folder / "runs.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(asdict(point)) + "\n")
    sys.stderr.write(f"{point}\n")


def _settings(job: Job, output: Path, steps: int, cooldown: float) -> dict[str, Any]:
    return {
        **{f"model.{name}": value for name, value in SHAPES[job.size].items()},
        "model_size": "nano",
        "data": job.folder / "train",
        "output": output,
        "batch_size": SEQUENCES,
        "seq_len": SEQ_LEN,
        "max_steps": steps,
        "optimizer.name": "muon",
        "schedule.kind": "wsd",
        "schedule.warmup_steps": WARM_UP,
        "schedule.cooldown_fraction": cooldown,
        "checkpoint.every": 0,
        "checkpoint.keep": 100,
        "evaluation.every": 0,
        "evaluation.tokens": 4096,
        "evaluation.sample_tokens": 0,
        "device": "cpu",
        "precision": "fp32",
        "seed": SEED,
    }


def _train(values: dict[str, Any]) -> Path:
    """The folder of the model at its end."""
    from ptbr_slm.train.config_file import from_values
    from ptbr_slm.train.run import train

    return train(from_values(values)).model


def bits_of(model: Path, folder: Path) -> float:
    """Bits per byte of a model's folder on all of the held-out text. folder: where `make_data` put that."""
    from ptbr_slm.data.prepared import PreparedData
    from ptbr_slm.eval.bits import held_out_windows
    from ptbr_slm.model import Llama
    from ptbr_slm.train.evaluate import bits_per_byte
    from ptbr_slm.train.planning.precision import Precision

    data = PreparedData.open(folder / "held-out")
    split = data.split("train")
    text = held_out_windows(split, data.load_tokenizer(), SEQ_LEN, split.tokens + SEQ_LEN)
    assert text is not None
    return bits_per_byte(Llama.from_folder(model), text, 8192 // SEQ_LEN, Precision("fp32", ""))


def _measured(job: Job, folder: Path, tokens: int) -> Point:
    from ptbr_slm.storage.model_folder import ModelFolder
    from ptbr_slm.train.config import default_learning_rate

    parameters = ModelFolder(folder).config.num_parameters
    return Point(
        size=job.size,
        parameters=parameters,
        tokens=tokens,
        bits_per_byte=bits_of(folder, job.folder),
        learning_rate=default_learning_rate(parameters, "muon"),
    )


def read_points(folder: Path) -> list[Point]:
    """What has been measured so far."""
    file = folder / "runs.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [Point(**json.loads(line)) for line in lines]


def make_data(corpus: Path, folder: Path) -> None:
    """Tokenizer and tokens of what is trained on, tokens of what is held out; made once."""
    from ptbr_slm.data.pipeline import prepare, read_documents
    from ptbr_slm.tokenizer import Tokenizer

    if (folder / "held-out" / "index.json").exists():
        return
    texts = {"train": folder / "train.jsonl", "held-out": folder / "held-out.jsonl"}
    folder.mkdir(parents=True, exist_ok=True)
    with (
        texts["train"].open("w", encoding="utf-8") as train,
        texts["held-out"].open("w", encoding="utf-8") as held,
    ):
        for held_out, document in _documents(corpus):
            (held if held_out else train).write(json.dumps({"text": document}, ensure_ascii=False) + "\n")
    tokenizer = Tokenizer.train((d.text for d in read_documents([texts["train"]])), VOCAB_SIZE)
    for name, file in texts.items():
        prepare([file], folder / name, tokenizer, valid_fraction=0.0)


def _documents(corpus: Path) -> Iterator[tuple[bool, str]]:
    """(held out, text) of each document."""
    for work in sorted((corpus / "machado").rglob("*.txt")):
        yield work.stem == HELD_WORK, work.read_text(encoding="utf-8")
    for file in (*(corpus / "modern" / f"{name}.txt" for name in MODERN), corpus / "python-docs-pt-br.txt"):
        pieces = file.read_text(encoding="utf-8").split("\n\n")
        if len(pieces) == 1:  # one paragraph a line, no documents: blocks of paragraphs
            lines = pieces[0].splitlines()
            pieces = ["\n".join(lines[at : at + 200]) for at in range(0, len(lines), 200)]
        for index, piece in enumerate(pieces):
            yield index % HELD_EACH == HELD_EACH // 2, piece


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for data, runs and results")
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--sizes", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--marks", type=int, nargs="+", default=list(MARKS))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
