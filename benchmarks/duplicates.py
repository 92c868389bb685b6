"""Near copies: recall and precision by similarity on planted copies, and time and memory by documents.

    python benchmarks/duplicates.py [--documents 3000] [--sizes 50000 200000]

Originals have 60 to 800 random words of a vocabulary with Zipf's frequencies. A copy has runs of words
replaced until its real Jaccard similarity (5-word shingles) reaches a target from 0.45 to 1. Precision: of
the documents that were joined, how many are copies of the one that they were joined with. For time and
memory a tenth of the documents are near copies, and each size runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from machine import facts
from results import progress, table

from ptbr_slm.data.duplicates.clusters import Clusters, find_near_duplicates
from ptbr_slm.data.duplicates.signatures import NearDuplicateSettings

BUCKETS = [(0.45, 0.55), (0.55, 0.65), (0.65, 0.75), (0.75, 0.8), (0.8, 0.85), (0.85, 0.95), (0.95, 1.01)]
VOCABULARY = 50_000
SETTINGS = NearDuplicateSettings()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", type=int, default=3_000)
    parser.add_argument("--sizes", type=int, nargs="*", default=[50_000, 200_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_scale(arguments.one)))
        return
    print(facts(["numpy", "rensa"], 1) + "\n")
    print(_recall(arguments.documents) + "\n")
    rows = []
    for size in arguments.sizes:
        progress(f"{size} documents")
        command = [sys.executable, __file__, "--one", str(size)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append([f"{size:,}", *found])
    header = ["documents", "text, MB", "documents/CPU s", "MB/CPU s", "peak, MiB", "disk, MB", "found"]
    print(table(header, rows))


def _recall(documents: int) -> str:
    """The table of recall and precision by similarity."""
    pick = np.random.default_rng(1)
    texts = [_words(pick, int(pick.integers(60, 800))) for _ in range(documents)]
    targets = pick.uniform(0.45, 1.0, documents)
    copies = [_changed(pick, words, target) for words, target in zip(texts, targets, strict=True)]
    similarity = np.array([_jaccard(a, b) for a, b in zip(texts, copies, strict=True)])
    with tempfile.TemporaryDirectory() as folder:
        strings = [_text(words) for words in texts + copies]
        clusters = find_near_duplicates(lambda: enumerate(strings), Path(folder), SETTINGS)
    originals = np.arange(documents)
    grouped = np.array([clusters.group_of(documents + i) for i in originals])
    dropped = np.array([clusters.original_of(documents + i) for i in originals])
    rows = []
    for low, high in BUCKETS:
        inside = (similarity >= low) & (similarity < high)
        joined = inside & (grouped != documents + originals)
        removed = inside & (dropped != documents + originals)
        rows.append(
            [
                f"{low:.2f} to {min(high, 1.0):.2f}",
                str(int(inside.sum())),
                f"{100 * joined.sum() / max(inside.sum(), 1):.1f} %",
                f"{100 * removed.sum() / max(inside.sum(), 1):.1f} %",
                f"{100 * (joined & (grouped == originals)).sum() / max(joined.sum(), 1):.1f} %",
            ]
        )
    return table(["similarity", "copies", "in one group", "dropped", "precision"], rows)


def _scale(documents: int) -> list[str]:
    """What one size takes: MB, documents and MB a CPU second, peak MiB, MB on disk, near copies found."""
    with tempfile.TemporaryDirectory() as folder:
        size = sum(len(text) for _, text in _documents(documents))
        start = time.process_time()
        for _ in _documents(documents):
            pass
        generation = time.process_time() - start
        start = time.process_time()
        clusters: Clusters = find_near_duplicates(lambda: _documents(documents), Path(folder), SETTINGS)
        seconds = time.process_time() - start - 2 * generation
        disk = sum(path.stat().st_size for path in Path(folder).iterdir())
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert peak is not None
    return [
        f"{size / 1e6:,.0f}",
        f"{documents / seconds:,.0f}",
        f"{size / 1e6 / seconds:.1f}",
        f"{int(peak[1]) / 1024:,.0f}",
        f"{disk / 1e6:,.0f}",
        f"{clusters.copies:,}",
    ]


def _documents(count: int) -> Iterator[tuple[int, str]]:
    """(number, text): each tenth document is the one before it with three words changed."""
    pick = np.random.default_rng(2)
    words = np.empty(0, np.int64)
    for number in range(count):
        if number % 10:
            words = _words(pick, int(pick.integers(100, 700)))
        elif number:
            words = words.copy()
            words[50:53] = VOCABULARY + number
        yield number, _text(words)


def _words(pick: np.random.Generator, count: int) -> np.ndarray:
    return np.minimum(pick.zipf(1.3, count), VOCABULARY)


def _text(words: np.ndarray) -> str:
    return " ".join(map(_NAMES.__getitem__, (words % len(_NAMES)).tolist()))


def _changed(pick: np.random.Generator, words: np.ndarray, target: float) -> np.ndarray:
    """`words` with runs of one to twenty replaced until the similarity is at most `target`."""
    changed = words.copy()
    for step in range(len(words)):
        if _jaccard(words, changed) <= target:
            break
        run = int(pick.integers(1, 3 + len(words) // 40))
        at = int(pick.integers(0, max(len(words) - run, 1)))
        changed[at : at + run] = VOCABULARY + 1 + 50 * step + np.arange(run)
    return changed


def _jaccard(first: np.ndarray, second: np.ndarray) -> float:
    sets = [
        set(map(bytes, np.lib.stride_tricks.sliding_window_view(words % len(_NAMES), SETTINGS.shingle_words)))
        for words in (first, second)
    ]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def _names() -> list[str]:
    """Words of two to four syllables, each once; without digits, which are folded."""
    pick = np.random.default_rng(3)
    syllables = [consonant + vowel for consonant in "bcdfglmnprstv" for vowel in "aeiou"]
    found: dict[str, None] = {}
    while len(found) < VOCABULARY + 20_000:
        found["".join(pick.choice(syllables, int(pick.integers(2, 5))))] = None
    return list(found)


_NAMES = _names()

if __name__ == "__main__":
    main()
