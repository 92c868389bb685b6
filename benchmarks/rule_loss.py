"""What the cleaning presets drop and change, by rule and source.

    python benchmarks/rule_loss.py [SOURCES...] [--presets web curated] [--show RULE --examples 20]

A folder is a source in which each file (each line of a .jsonl, each row of a .parquet) is a document. A text
file is a source whose documents are parted by blank lines. `--show` prints dropped documents instead of the
tables, drawn at random, so that a person can judge a rule.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from machine import facts
from results import command, progress, table, write_section

from ptbr_slm.data.document import Document, Skipped
from ptbr_slm.data.presets import PRESETS, Preset, preset
from ptbr_slm.data.process import Outcome, outcomes
from ptbr_slm.data.read.files import list_files
from ptbr_slm.data.read.formats import TEXT_FIELD
from ptbr_slm.data.read.reader import read_file
from ptbr_slm.data.stages.stage import Dropped

CORPUS = Path("../shared/corpus")
LEAST_SHARE = 0.01
"""Of the documents of a source: what drops or changes fewer is left out of the tables."""


@dataclass(slots=True)
class Loss:
    """What a preset makes of one source."""

    documents: int = 0
    bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Rule (a key of `document.REASONS`) -> documents that it is the first to drop."""
    dropped_bytes: Counter[str] = field(default_factory=Counter)
    """The same in UTF-8 bytes."""
    alone: Counter[str] = field(default_factory=Counter)
    """Rule -> documents that it would drop if it were the only one."""
    repaired: Counter[str] = field(default_factory=Counter)
    """Repair (a key of `document.REPAIRS`) -> documents, dropped ones too."""
    changed: int = 0
    """Documents with at least one repair."""

    def add(self, outcome: Outcome, stages: Preset) -> None:
        """Count one document."""
        size = len(outcome.document.text.encode())
        self.documents += 1
        self.bytes += size
        self.repaired.update(set(outcome.repairs))
        self.changed += bool(outcome.repairs)
        if outcome.dropped is not None:
            self.dropped[outcome.dropped.reason] += 1
            self.dropped_bytes[outcome.dropped.reason] += size
        self.alone.update(objections(outcome, stages))


def objections(outcome: Outcome, stages: Preset) -> set[str]:
    """Every rule that would drop a document, and not the first alone."""
    found = set[str]()
    if outcome.dropped is not None:
        found.add(outcome.dropped.reason)
        if outcome.stage not in {stage.name for stage in stages.filtering}:
            return found  # dropped before its figures were known
    for stage in stages.filtering:
        answer = stage(outcome.document)
        if isinstance(answer, Dropped):
            found.add(answer.reason)
    return found


def documents_of(source: Path) -> Iterator[Document]:
    """The documents of a folder or a file, see the module."""
    for file in list_files([source]):
        if isinstance(file, Skipped):
            continue
        for found in read_file(file, TEXT_FIELD):
            if isinstance(found, Skipped):
                continue
            if source.is_dir() or file.format != "text":
                yield found
                continue
            for text in found.text.split("\n\n"):
                if text.strip():
                    yield replace(found, text=text)


def judged(documents: Iterable[Document], stages: Preset) -> Iterator[Outcome]:
    """What a preset makes of each document."""
    for document in documents:
        yield from outcomes(stages, document)


def measure(documents: Iterable[Document], stages: Preset) -> Loss:
    """The loss of one source under one preset."""
    loss = Loss()
    for outcome in judged(documents, stages):
        loss.add(outcome, stages)
    return loss


def share(part: float, whole: float) -> str:
    """A percentage; what is not zero is not printed as zero."""
    percent = 100 * part / max(whole, 1)
    return "0 %" if part == 0 else "< 0.1 %" if percent < 0.1 else f"{percent:.1f} %"


def totals(losses: dict[str, dict[str, Loss]]) -> str:
    """Table: source by preset. `losses` is preset -> source -> loss."""
    presets = list(losses)
    rows = []
    for source, first in losses[presets[0]].items():
        row = [source, f"{first.documents:,}", f"{first.bytes / 1e6:.1f}"]
        for name in presets:
            loss = losses[name][source]
            row += [
                share(loss.dropped.total(), loss.documents),
                share(loss.dropped_bytes.total(), loss.bytes),
                share(loss.changed, loss.documents),
            ]
        rows.append(row)
    columns = ["documents dropped", "bytes dropped", "documents changed"]
    header = ["source", "documents", "MB", *(f"{name}: {column}" for name in presets for column in columns)]
    return table(header, rows)


def by_rule(losses: dict[str, Loss]) -> str:
    """Table: source and rule, the worst first. `losses` is source -> loss, of one preset."""
    rows = []
    for source, loss in losses.items():
        for rule, count in loss.alone.most_common():
            if count >= LEAST_SHARE * loss.documents:
                rows.append(
                    [
                        f"{source}: {rule}",
                        share(loss.dropped[rule], loss.documents),
                        share(loss.dropped_bytes[rule], loss.bytes),
                        share(count, loss.documents),
                    ]
                )
    return table(["source: rule", "documents", "bytes", "documents, if it were the only rule"], rows)


def by_repair(losses: dict[str, Loss]) -> str:
    """Table: source and repair. `losses` is source -> loss, of one preset."""
    rows = [
        [f"{source}: {repair}", f"{count:,}", share(count, loss.documents)]
        for source, loss in losses.items()
        for repair, count in loss.repaired.most_common()
        if count >= LEAST_SHARE * loss.documents
    ]
    return table(["source: repair", "documents", "share"], rows)


def show(sources: Sequence[Path], stages: Preset, rule: str, examples: int) -> None:
    """Print dropped documents, `examples` of each source."""
    for source in sources:
        dropped = [
            outcome
            for outcome in judged(documents_of(source), stages)
            if outcome.dropped is not None and outcome.dropped.reason == rule
        ]
        picked = random.Random(0).sample(dropped, min(examples, len(dropped)))
        for outcome in picked:
            assert outcome.dropped is not None
            text = " / ".join(outcome.document.text.split("\n"))
            middle = max(len(text) // 2 - 200, 0)
            print(f"{source.stem}: {rule} {dict(outcome.dropped.figures)}: {text[middle : middle + 400]}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sources", type=Path, nargs="*", help=f"default: what lies in {CORPUS}")
    parser.add_argument("--presets", nargs="+", choices=sorted(PRESETS), default=["web", "curated"])
    parser.add_argument("--show", metavar="RULE", help="a key of ptbr_slm.data.document.REASONS")
    parser.add_argument("--examples", type=int, default=20)
    parser.add_argument("--write", action="store_true", help="write the tables into docs/benchmarks.md")
    arguments = parser.parse_args()
    sources = arguments.sources or corpus_sources(CORPUS)
    if missing := [source for source in sources if not source.exists()]:
        parser.error(f"{missing[0]} does not exist")
    if arguments.show:
        show(sources, preset(arguments.presets[0]), arguments.show, arguments.examples)
        return
    lines = [f"`{command()}`", "", facts(["numpy", "py3langid", "ftfy"], 1), ""]
    losses: dict[str, dict[str, Loss]] = {name: {} for name in arguments.presets}
    for name in arguments.presets:
        stages = preset(name)
        for source in sources:
            progress(f"{name}: {source.name}")
            losses[name][source.stem] = measure(documents_of(source), stages)
    lines += [totals(losses), ""]
    for name in arguments.presets:
        lines += [f"Dropped by `{name}`:", "", by_rule(losses[name]), ""]
    lines += [f"Changed by `{arguments.presets[0]}`:", "", by_repair(losses[arguments.presets[0]])]
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        write_section("rule_loss", text)


def corpus_sources(corpus: Path) -> list[Path]:
    """Each folder of texts, and each text file of `modern/` and beside it."""
    found = sorted(path for path in corpus.glob("*") if path.is_dir() and path.name != "modern")
    return [*found, *sorted(corpus.glob("modern/*.txt")), *sorted(corpus.glob("*.txt"))]


if __name__ == "__main__":
    main()
