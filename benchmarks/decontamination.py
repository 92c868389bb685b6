"""Evaluation sets looked for in texts: items found, documents dropped or cut, and documents a CPU second.

    python benchmarks/decontamination.py TEXTS... --sets SET...

TEXTS are what `data prepare` reads. Each set is looked for by itself.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

from machine import facts
from results import table

from ptbr_slm.data.decontamination.evaluation_sets import read_evaluation_set
from ptbr_slm.data.decontamination.overlaps import EvaluationIndex
from ptbr_slm.data.pipeline import read_documents
from ptbr_slm.data.stages.decontaminate import Decontaminate
from ptbr_slm.data.stages.stage import Dropped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--sets", type=Path, nargs="+", required=True)
    arguments = parser.parse_args()
    print(facts(["numpy"], 1) + "\n")
    documents = list(read_documents(arguments.texts))
    megabytes = sum(len(document.text.encode()) for document in documents) / 1e6
    print(f"{len(documents):,} documents, {megabytes:.1f} MB\n")
    rows = []
    for path in arguments.sets:
        index = EvaluationIndex(read_evaluation_set(path))
        stage = Decontaminate(index)
        found: set[str] = set()
        dropped = cut = 0
        start = time.process_time()
        overlaps = [index.search(document.text) for document in documents]
        seconds = time.process_time() - start
        for document, here in zip(documents, overlaps, strict=True):
            found |= {overlap.item for overlap in here}
            if here:
                answer = stage(document)
                dropped += isinstance(answer, Dropped)
                cut += not isinstance(answer, Dropped)
        items = len({item.source for item in index.items})
        rows.append(
            [
                path.name,
                f"{items:,}",
                f"{len(found):,} ({100 * len(found) / max(items, 1):.1f} %)",
                f"{dropped:,}",
                f"{cut:,}",
                f"{len(documents) / seconds:,.0f}",
                f"{megabytes / seconds:.1f}",
            ]
        )
    header = ["set", "items", "found", "dropped", "cut", "documents/CPU s", "MB/CPU s"]
    print(table(header, rows))
    print(f"\nPeak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB, the texts included.")


if __name__ == "__main__":
    main()
