"""`ptbr-slm eval` against lm-evaluation-harness's `hf` backend: the same task file, model and process.

    python benchmarks/evaluation.py [--size mini] [--items 40] [--rounds 3]
    python benchmarks/evaluation.py --memory            # peak memory over 200 and 2,000 items instead

Needs `pip install lm_eval==0.4.13 accelerate`. Both are given the items of the task file and return its
answers: tokenizing, scoring and, on our side, judging. The harness runs in batches of 1, its default, and 16.
Contestants in turn, medians of the process's CPU time, so that neighbours on the machine disturb little.
Tokens are those of each prompt with each continuation as a text of its own, for all contestants alike.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from arguments import contest_parser
from machine import facts, peak_memory
from ptbr_slm_export import export_model
from results import command, spread, table
from scoring import TASKS, hold

from ptbr_slm.bench.synthetic import write_random_model
from ptbr_slm.config import model_config
from ptbr_slm.eval.run import answer
from ptbr_slm.eval.subject import LocalSubject
from ptbr_slm.eval.tasks.documents import load_task_data
from ptbr_slm.eval.tasks.items import Item, task_items
from ptbr_slm.eval.tasks.task import Task
from ptbr_slm.eval.tasks.task_file import read_task
from ptbr_slm.runtime.scoring import encode_pairs

KINDS = {
    "choices": {
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": 0,
        "metric_list": [{"metric": "acc_norm"}],
    },
    "words": {
        "output_type": "loglikelihood",
        "doc_to_target": " {{choices[0]}}",
        "metric_list": [{"metric": "acc"}],
    },
}
"""Four choices after a question, and the last word of a passage (LAMBADA's form); of invented words."""
BATCHES = (1, 16)
EXPORTS = ("fp32", "int8")
MEMORY_ITEMS = (200, 2_000)
_DIFFERENT = 200
"""Items of different words; after these, the same ones under other numbers."""


def main() -> None:
    arguments = _arguments()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    folder = arguments.folder / arguments.size
    _write_models(folder, arguments.size)
    if arguments.peak_of:
        print(peak_of(folder, arguments.peak_of))
        return
    if arguments.memory:
        measure_memory()
        return
    about = facts(("onnxruntime", "torch", "transformers", "lm_eval"), arguments.threads)
    ours = {name: LocalSubject(folder / name, "cpu") for name in ("model", *EXPORTS)}
    harness = {size: _harness(folder / "model", size) for size in BATCHES}
    rows = []
    for kind in KINDS:
        task, items = read_items(folder, kind, arguments.items)
        contestants: dict[str, Callable[[], Sequence[float]]] = {
            **{f"hf, {size}": partial(harness_scores, harness[size], items) for size in BATCHES},
            **{name: partial(our_scores, subject, task, items) for name, subject in ours.items()},
        }
        times, scores = hold(contestants, arguments.rounds)
        apart = max(abs(a - b) for a, b in zip(scores["hf, 1"], scores["fp32"], strict=True))
        rows += _rows(kind, times, len(items), _tokens(ours["fp32"], items), apart)
    header = ["task", "contestant", "CPU s", "items/s", "tokens/s", "against hf"]
    print(f"`{command()}`\n\n{about}\n\n{table(header, rows)}")


def _rows(kind: str, times: dict[str, list[float]], items: int, tokens: int, apart: float) -> list[list[str]]:
    best = min(statistics.median(times[f"hf, {size}"]) for size in BATCHES)
    found = []
    for name, values in times.items():
        seconds = statistics.median(values)
        label = f"{kind}, {items} items" + (f", fp32 apart {apart:.0e}" if not found else "")
        found.append(
            [
                label if not found else "",
                name,
                spread(values, 2),
                f"{items / seconds:.1f}",
                f"{tokens / seconds:.0f}",
                f"{best / seconds:.1f}x",
            ]
        )
    return found


def our_scores(subject: LocalSubject, task: Task, items: Sequence[Item]) -> list[float]:
    """Nats of every continuation, by our evaluation."""
    return [nats for result in answer(subject, task, items) for nats in result.logprobs]


def harness_scores(model: Any, items: Sequence[Item]) -> list[float]:
    """Nats of every continuation, by the harness's model."""
    from lm_eval.api.instance import Instance

    asked = [
        Instance("loglikelihood", {}, (item.prompt, choice), 0) for item in items for choice in item.choices
    ]
    return [nats for nats, _ in model.loglikelihood(asked, disable_tqdm=True)]


def read_items(folder: Path, kind: str, count: int) -> tuple[Task, list[Item]]:
    """The task file of a kind, written and read again, with its items."""
    different = TASKS[kind](min(count, _DIFFERENT))[:count]
    rows = [
        {"id": str(number), "prompt": f"{number}. {prompt}", "choices": [text.strip() for text in texts]}
        for number, (prompt, texts) in zip(range(count), cycle(different), strict=False)
    ]
    data = folder / f"{kind}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = {
        "task": kind,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": data.name}},
        "test_split": "test",
        "doc_to_text": "prompt",
        "metadata": {"version": 1, "licence": "CC0-1.0", "source": "invented words"},
        **KINDS[kind],
    }
    file = folder / f"{kind}.yaml"
    file.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    task = read_task(file)
    return task, list(task_items(task, load_task_data(task, [folder]).rows))


def _tokens(subject: LocalSubject, items: Sequence[Item]) -> int:
    engine = subject.model.engine
    return sum(
        len(pair.ids)
        for item in items
        for pair in encode_pairs(engine.tokenizer, engine.config, item.prompt, item.choices)
    )


def _harness(folder: Path, batch_size: int) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=batch_size)


def _write_models(folder: Path, size: str) -> None:
    source = folder / "model"
    if not source.exists():
        write_random_model(source, model_config(size))
    for precision in EXPORTS:
        if not (folder / precision).exists():
            export_model(source, folder / precision, precision=precision, verify=False)


def measure_memory() -> None:
    """Each number of items in a process of its own: what the larger one needs beyond the smaller."""
    peaks = {}
    for count in MEMORY_ITEMS:
        asked = [sys.executable, *sys.argv, "--peak-of", str(count)]
        done = subprocess.run(asked, check=True, capture_output=True, text=True)
        peaks[count] = int(done.stdout)
    found = ", ".join(f"{count} items: {peak >> 20} MiB" for count, peak in peaks.items())
    print(f"`{command()}`\n\nPeak resident memory, fp32 export, 4 choices: {found}.")


def peak_of(folder: Path, count: int) -> int:
    """Bytes of this process's largest resident memory after an evaluation of `count` items."""
    task, items = read_items(folder, "choices", count)
    with LocalSubject(folder / "fp32", "cpu") as subject:
        our_scores(subject, task, items)
    return peak_memory()


def _arguments() -> Any:
    parser = contest_parser(__doc__, rounds=3)
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--memory", action="store_true", help="measure memory instead of speed")
    parser.add_argument("--peak-of", type=int, default=0, help="print the peak memory of that many items")
    parser.set_defaults(size="mini", threads=1, folder=Path("models/benchmark"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
