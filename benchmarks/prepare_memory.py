"""Memory, disk and time of `data prepare` by the size of its input, on generated text.

    python benchmarks/prepare_memory.py [--gigabytes 0.1 1] [--presets curated web] [--folder /tmp/somewhere]

The text is made of 40,000 words of its own with Zipf's frequencies: 200,000 beginnings and as many ends of
sentences, put together at random in documents of 1 to 1,000 sentences. It is the same every time. Of each
1,000 documents 20 are exact and 20 are near copies of one that is up to 2,000 documents before. Every step is
on: near and exact copies, the validation split, tokens. The command runs as a user starts it. Every 0.2 s the
resident memory of all its processes is added up; pages that processes share count in each, so the sum is an
upper bound. Disk is what lies in the folder beside the input.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from machine import facts
from results import progress, table

VOCABULARY = 40_000
CLAUSES = 200_000
"""Beginnings of sentences, and as many ends."""
VOCAB_SIZE = 16_000
"""Tokens of the tokenizer, learned from the text itself."""
_FREQUENT = """
de a o que e do da em um para com não uma os no se na por mais as dos como mas ao ele das à seu sua ou quando
muito nos já eu também só pelo pela até isso ela entre depois sem mesmo aos seus quem nas me esse eles você
essa num nem suas meu às minha numa pelos elas qual nós lhe deles essas esses pelas este dele tempo casa dia
ano vida mundo homem mulher cidade água terra noite parte trabalho lugar nome forma governo país história
"""
_SYLLABLES = """
ba be bi bo ca co da de di do fa fe fi fo ga go gua ja jo la le li lo lha lho ma me mi mo na ne ni no nha nho
pa pe pi po que qui ra re ri ro sa se si so ta te ti to va ve vi vo xa zo ção são bra cre dro fri gra pra pre
tra tri tro plu cla ão ém ês ar er ir or al el il am em ei ou es is os
"""
COPIES, NEAR_COPIES, REACH = 20, 20, 1_000
"""Exact and near copies in each `REACH` documents."""


def documents() -> Iterator[str]:
    """Texts without end, of 2,900 characters in the mean: the same every time."""
    pick = np.random.default_rng(1)
    beginnings, ends = _clauses(pick)
    earlier: list[str] = []
    while True:
        sizes = pick.lognormal(2.75, 0.9, REACH).clip(1, 1_000).astype(int)  # sentences
        clauses = np.empty((int(sizes.sum()), 2), dtype=object)
        clauses[:, 0] = beginnings[pick.integers(len(beginnings), size=len(clauses))]
        clauses[:, 1] = ends[pick.integers(len(ends), size=len(clauses))]
        stops = np.cumsum(sizes).tolist()
        fresh = [
            "".join(clauses[start:stop].ravel().tolist()).rstrip()
            for start, stop in zip([0, *stops], stops, strict=False)
        ]
        places = pick.permutation(REACH)
        for place in places[:COPIES].tolist():
            fresh[place] = (earlier or fresh)[int(pick.integers(REACH))]
        for place in places[COPIES : COPIES + NEAR_COPIES].tolist():
            original = (earlier or fresh)[int(pick.integers(REACH))]
            fresh[place] = f"{original}\n{beginnings[place]}e fim."
        yield from fresh
        earlier = fresh


def _clauses(pick: np.random.Generator) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.object_]]:
    """(beginnings, ends) of sentences, 3 to 14 words each with Zipf's frequencies."""
    words = np.array(_vocabulary(pick), dtype=object)
    weights = 1 / np.arange(1, VOCABULARY + 1)
    lengths = pick.integers(3, 15, 2 * CLAUSES)
    drawn = words[pick.choice(VOCABULARY, int(lengths.sum()), p=weights / weights.sum())].tolist()
    stops = np.cumsum(lengths).tolist()
    clauses = [" ".join(drawn[start:stop]) for start, stop in zip([0, *stops], stops, strict=False)]
    beginnings = [f"{clause[0].upper()}{clause[1:]}, " for clause in clauses[:CLAUSES]]
    breaks = (pick.random(CLAUSES) < 0.3).tolist()
    ends = [
        clause + (".\n\n" if ends else ". ") for clause, ends in zip(clauses[CLAUSES:], breaks, strict=True)
    ]
    return np.array(beginnings, dtype=object), np.array(ends, dtype=object)


def _vocabulary(pick: np.random.Generator) -> list[str]:
    """Distinct words, the frequent ones first."""
    words = dict.fromkeys(_FREQUENT.split())
    syllables = _SYLLABLES.split()
    while len(words) < VOCABULARY:
        chosen = pick.integers(len(syllables), size=int(pick.integers(2, 6)))
        words["".join(syllables[number] for number in chosen)] = None
    return list(words)


def write(path: Path, size: int) -> int:
    """Write `size` bytes of JSONL or a little more; returns the number of documents."""
    count = written = 0
    with path.open("wb") as file:
        for text in documents():
            written += file.write(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n")
            count += 1
            if written >= size:
                break
    return count


@dataclass(slots=True)
class Peaks:
    """The most that was seen of each."""

    processes: int = 0
    resident: int = 0
    """Bytes, all processes together."""
    anonymous: int = 0
    """Of these, not of a file."""
    disk: int = 0
    """Bytes in the folder, beside the input."""


def measure(command: list[str], folder: Path, source: Path) -> tuple[Peaks, float, float]:
    """(peaks, seconds, CPU seconds) of a command that works in `folder`. Raises where it fails."""
    peaks = Peaks()
    began, looked = time.perf_counter(), 0.0
    before = os.times()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        while process.poll() is None:
            found = [_memory(pid) for pid in _tree(process.pid)]
            peaks.processes = max(peaks.processes, len(found))
            peaks.resident = max(peaks.resident, sum(resident for resident, _ in found))
            peaks.anonymous = max(peaks.anonymous, sum(anonymous for _, anonymous in found))
            if time.perf_counter() - looked > 1:
                looked = time.perf_counter()
                peaks.disk = max(peaks.disk, _disk(folder, source))
            time.sleep(0.2)
    seconds = time.perf_counter() - began
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    if process.returncode:
        raise SystemExit((folder / "log").read_text()[-2_000:])
    return peaks, seconds, cpu


def _tree(root: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _memory(pid: int) -> tuple[int, int]:
    """(resident, anonymous) bytes of a process; zeros for one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    resident, anonymous = (int(fields.get(name, ["0"])[0]) << 10 for name in ("VmRSS", "RssAnon"))
    return resident, anonymous


def _disk(folder: Path, source: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # removed meanwhile
            total += path.stat().st_blocks * 512 if path.is_file() and path != source else 0
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.1, 1])
    parser.add_argument("--presets", nargs="+", default=["curated", "web"])
    parser.add_argument("--folder", type=Path, help="where to work; everything in it is deleted at the end")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--options", default="", help="more options of data prepare, in one argument")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        for gigabytes in arguments.gigabytes:
            rows += _size(folder, gigabytes, arguments)
            print(table(_HEADER, rows[-len(arguments.presets) :]), file=sys.stderr, flush=True)
    print(facts(["numpy", "tokenizers", "rensa"], arguments.workers) + "\n")
    print(table(_HEADER, rows))


_HEADER = ["input, GB", "documents", "preset", "minutes", "MB/s", "documents/s", "CPU minutes", "processes",
           "peak RSS, MiB", "anonymous, MiB", "disk, GB", "tokens, millions"]  # fmt: skip


def _size(folder: Path, gigabytes: float, arguments: argparse.Namespace) -> list[list[str]]:
    """The rows of one size."""
    source, tokenizer = folder / "texts.jsonl", folder / "tokenizer.json"
    progress(f"{gigabytes} GB: writing the text")
    count = write(source, int(gigabytes * 1e9))
    run = [sys.executable, "-m", "ptbr_slm"]
    if not tokenizer.exists():
        train = ["tokenizer", "train", str(source), "-o", str(tokenizer), "--vocab-size", str(VOCAB_SIZE)]
        subprocess.run([*run, *train, "--sample", "20MB"], check=True, capture_output=True)
    size = source.stat().st_size
    rows = []
    for preset in arguments.presets:
        progress(f"{gigabytes} GB, {preset}, since {time.strftime('%H:%M:%S')}")
        out = folder / "out"
        options = ["--preset", preset, "--workers", str(arguments.workers), *arguments.options.split()]
        command = [*run, "data", "prepare", str(source), "-o", str(out), "--tokenizer", str(tokenizer)]
        peaks, seconds, cpu = measure([*command, *options], folder, source)
        tokens = sum(path.stat().st_size for path in out.rglob("*.bin")) / 2
        rows.append(
            [f"{size / 1e9:.2f}", f"{count:,}", preset, f"{seconds / 60:.1f}", f"{size / seconds / 1e6:.1f}",
             f"{count / seconds:,.0f}", f"{cpu / 60:.1f}", str(peaks.processes),
             f"{peaks.resident / 2**20:,.0f}", f"{peaks.anonymous / 2**20:,.0f}", f"{peaks.disk / 1e9:.2f}",
             f"{tokens / 1e6:,.0f}"]
        )  # fmt: skip
        subprocess.run(["rm", "-r", str(out)], check=True)
    source.unlink()
    return rows


if __name__ == "__main__":
    main()
