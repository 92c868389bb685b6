"""Near copies: recall and precision by similarity on planted copies, and time and memory by documents.

    python benchmarks/duplicates.py [--documents 6000] [--sizes 50000 200000] [--write]

Originals have 60 to 800 random words of a vocabulary with Zipf's frequencies. A copy has runs of words
replaced until its real Jaccard similarity (5-word shingles) reaches a target from 0.45 to 1.

*Share a band*: pairs that the signatures make candidates, beside the share that theory gives for their
similarities, 1 - (1 - s**rows)**bands. *In one group*: kept on one side of the validation split. *Over the
split*: of documents held out (1 % of the text, 200 draws of the split keys), those whose copy is trained on.
*Precision*: of copies that are in a group, those that are in their original's. For time and memory a tenth of
the documents are near copies, and each size runs in a process of its own.
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
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from machine import facts
from results import command, progress, table, write_section

from ptbr_slm.data.duplicates.clusters import Clusters, find_near_duplicates
from ptbr_slm.data.duplicates.signatures import NearDuplicateSettings, signatures
from ptbr_slm.data.hold_out import choose_hold_out

EDGES = (0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 1.0)
HELD_OUT = 0.01
DRAWS = 200
VOCABULARY = 50_000
SETTINGS = NearDuplicateSettings()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", type=int, default=6_000)
    parser.add_argument("--sizes", type=int, nargs="*", default=[50_000, 200_000])
    parser.add_argument("--write", action="store_true", help="write the tables into docs/benchmarks.md")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_scale(arguments.one)))
        return
    settings = ", ".join(f"{name} {value}" for name, value in SETTINGS.description().items())
    lines = [f"`{command()}`", "", facts(["numpy", "rensa"], 1), ""]
    lines += [f"{arguments.documents:,} planted pairs. {settings}.", "", _recall(arguments.documents)]
    rows = []
    for size in arguments.sizes:
        progress(f"{size} documents")
        one = [sys.executable, __file__, "--one", str(size)]
        found = json.loads(subprocess.run(one, check=True, capture_output=True, text=True).stdout)
        rows.append([f"{size:,}", *found])
    header = ["documents", "text, MB", "documents/CPU s", "MB/CPU s", "peak, MiB", "disk, MB", "found"]
    if rows:
        lines += ["", table(header, rows)]
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        write_section("duplicates", text)


def _recall(documents: int) -> str:
    """The table of recall and precision by similarity."""
    pick = np.random.default_rng(1)
    texts = [_words(pick, int(pick.integers(60, 800))) for _ in range(documents)]
    targets = pick.uniform(0.45, 1.0, documents)
    copies = [_changed(pick, words, target) for words, target in zip(texts, targets, strict=True)]
    similarity = np.array([_jaccard(a, b) for a, b in zip(texts, copies, strict=True)])
    strings = [_text(words) for words in texts + copies]
    with tempfile.TemporaryDirectory() as folder:
        clusters = find_near_duplicates(lambda: enumerate(strings), Path(folder), SETTINGS)
    bands = signatures(strings, SETTINGS)
    candidate = (bands[:documents] == bands[documents:]).any(axis=1)
    originals = np.arange(documents)
    grouped = np.array([clusters.group_of(number) for number in range(2 * documents)])
    dropped = np.array([clusters.original_of(documents + i) for i in originals])
    held, apart = split_pairs(grouped, np.array([len(string) for string in strings]))
    rows = []
    for low, high in pairwise(EDGES):
        inside = (similarity >= low) & ((similarity < high) | (high == EDGES[-1]))
        joined = inside & (grouped[documents:] != documents + originals)
        shares = [
            share((inside & candidate).sum(), inside.sum()),
            share(shares_a_band(similarity[inside]).sum(), inside.sum()),
            share(joined.sum(), inside.sum()),
            share((inside & (dropped != documents + originals)).sum(), inside.sum()),
            share(apart[inside].sum(), held[inside].sum()),
            share((joined & (grouped[documents:] == originals)).sum(), joined.sum()),
        ]
        rows.append([f"{low:.2f} to {high:.2f}", str(int(inside.sum())), *shares])
    header = ["similarity", "copies", "share a band", "by theory", "in one group", "dropped"]
    return table([*header, "over the split", "precision"], rows)


def share(part: float, whole: float) -> str:
    """A percentage; nothing where there is no whole."""
    return f"{100 * part / whole:.1f} %" if whole else ""


def shares_a_band(similarity: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The probability that two documents of this similarity agree in a band (`signatures`)."""
    return np.asarray(1 - (1 - similarity**SETTINGS.rows) ** SETTINGS.bands)


def split_pairs(
    group: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each pair, how often one of it was held out, and how often the other was then trained on.

    group: (2 N,) the first document of each document's group; document i and document N + i are a pair.
    """
    half = len(group) // 2
    held = np.zeros(half, np.int64)
    apart = np.zeros(half, np.int64)
    pick = np.random.default_rng(4)
    for _ in range(DRAWS):
        keys = pick.random(2 * half)[group]  # documents of a group share a key, as in `select`
        choice = choose_hold_out(keys, sizes, HELD_OUT)
        out = np.array([choice.split_of(key) == "valid" for key in keys.tolist()])
        held += out[:half].astype(np.int64) + out[half:]
        apart += out[:half] != out[half:]
    return held, apart


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
    return " ".join(map(_names().__getitem__, (words % len(_names())).tolist()))


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
        set(
            map(
                bytes, np.lib.stride_tricks.sliding_window_view(words % len(_names()), SETTINGS.shingle_words)
            )
        )
        for words in (first, second)
    ]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@cache
def _names() -> list[str]:
    """Words of two to four syllables, each once; without digits, which are folded."""
    pick = np.random.default_rng(3)
    syllables = [consonant + vowel for consonant in "bcdfglmnprstv" for vowel in "aeiou"]
    found: dict[str, None] = {}
    while len(found) < VOCABULARY + 20_000:
        drawn = pick.integers(len(syllables), size=(10_000, 4))
        lengths = pick.integers(2, 5, 10_000)
        for row, length in zip(drawn.tolist(), lengths.tolist(), strict=True):
            found["".join(syllables[at] for at in row[:length])] = None
    return list(found)[: VOCABULARY + 20_000]


if __name__ == "__main__":
    main()
