"""`data prepare` against the same steps written with `datasets.map` and `tokenizers`, on two cores.

    python benchmarks/prepare.py TEXTS... --tokenizer TOKENIZER [--rounds 3]

The texts become one JSONL file, a document for each block between blank lines. Both sides clean with the
same function (`ptbr_slm.data.stages.clean`), leave out what has fewer than two words and exact copies,
tokenize with the same tokenizer and write token ids of two bytes. Ours also keeps counts, groups near copies
for the split and can be killed and resumed; theirs does none of that. Each run is a process of its own; they
take turns.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import facts
from results import progress, table

WORKERS = 2


def ours(source: Path, tokenizer: Path, out: Path, workers: int = WORKERS) -> None:
    """`ptbr-slm data prepare`, as the command does it."""
    from ptbr_slm.data.mixture import plan
    from ptbr_slm.data.pipeline import prepare
    from ptbr_slm.tokenizer import Tokenizer

    prepare([], out, Tokenizer.load(tokenizer), recipe=plan([source]), workers=workers)


def ours_alone(source: Path, tokenizer: Path, out: Path) -> None:
    """The same in one process."""
    ours(source, tokenizer, out, workers=1)


def peer(source: Path, tokenizer: Path, out: Path) -> None:
    """Hugging Face datasets."""
    import datasets
    import numpy as np
    import tokenizers

    from ptbr_slm.data.stages.clean import clean

    datasets.disable_progress_bars()
    encoder = tokenizers.Tokenizer.from_file(str(tokenizer))
    bos, eos = encoder.token_to_id("<|bos|>"), encoder.token_to_id("<|eos|>")

    def cleaned(batch: dict[str, list[str]]) -> dict[str, list[str]]:
        texts = [clean(text).text for text in batch["text"]]
        return {"text": [text for text in texts if len(text.split(maxsplit=2)) >= 2]}

    def encoded(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        found = encoder.encode_batch(batch["text"], add_special_tokens=False)
        return {"ids": [[bos, *one.ids, eos] for one in found]}

    out.mkdir()
    read = datasets.load_dataset("json", data_files=str(source), split="train", cache_dir=str(out / "cache"))
    read = read.map(cleaned, batched=True, num_proc=WORKERS)
    seen: set[int] = set()
    fresh = read.filter(lambda text: not (hash(text) in seen or seen.add(hash(text))), input_columns="text")
    ids = fresh.map(encoded, batched=True, num_proc=WORKERS, remove_columns=fresh.column_names)
    with (out / "train.bin").open("wb") as file:
        for batch in ids.with_format("numpy").iter(1000):
            file.write(np.concatenate(batch["ids"]).astype("<u2").tobytes())


SIDES: dict[str, Callable[[Path, Path, Path], None]] = {
    "ptbr-slm, 2 processes": ours,
    "ptbr-slm, 1 process": ours_alone,
    "datasets.map, 2 processes": peer,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(_one(arguments.side, arguments.texts[0], arguments.tokenizer)))
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "texts.jsonl"
        documents = _documents(arguments.texts, source)
        runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for number in range(arguments.rounds):
            for side in SIDES:
                progress(f"round {number + 1} of {arguments.rounds}, {side}")
                command = [sys.executable, __file__, str(source), "--tokenizer", str(arguments.tokenizer)]
                done = subprocess.run([*command, "--side", side], check=True, capture_output=True, text=True)
                runs[side].append(json.loads(done.stdout.splitlines()[-1]))
        size = source.stat().st_size
    print(facts(["tokenizers", "datasets", "pyarrow"], WORKERS) + "\n")
    print(f"{documents:,} documents, {size / 1e6:.0f} MB of JSONL; medians of {arguments.rounds} rounds\n")
    print(table(["", "documents/s", "seconds", "CPU seconds", "peak, MiB", "tokens"], _rows(runs, documents)))


def _one(side: str, source: Path, tokenizer: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        began, out = time.perf_counter(), Path(folder) / "out"
        SIDES[side](source, tokenizer, out)
        seconds = time.perf_counter() - began
        tokens = sum(file.stat().st_size for file in out.glob("*.bin")) // 2
    used: list[Any] = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "seconds": seconds,
        "cpu": sum(one.ru_utime + one.ru_stime for one in used),
        "peak": max(one.ru_maxrss for one in used) / 1024,
        "tokens": tokens,
    }


def _documents(texts: list[Path], source: Path) -> int:
    """Write the JSONL file; returns the number of documents."""
    files = [file for path in texts for file in (sorted(path.rglob("*.txt")) if path.is_dir() else [path])]
    count = 0
    with source.open("w", encoding="utf-8") as out:
        for file in files:
            for text in file.read_text(encoding="utf-8").split("\n\n"):
                if text.strip():
                    out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                    count += 1
    return count


def _rows(runs: dict[str, list[dict[str, float]]], documents: int) -> list[list[str]]:
    rows = []
    for side, found in runs.items():
        middle = {key: statistics.median(run[key] for run in found) for key in found[0]}
        speed = documents / middle["seconds"]
        rows.append(
            [side, f"{speed:,.0f}", f"{middle['seconds']:.1f}", f"{middle['cpu']:.1f}",
             f"{middle['peak']:.0f}", f"{middle['tokens']:,.0f}"]
        )  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
