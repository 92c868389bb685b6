"""Brazilian or European: how often the variety is named, and how often rightly, domain by domain.

    python benchmarks/variety.py [--corpus FOLDER] [--bosque FILE] [--min-confidence 0.9] [--write]

Domains are the texts of `../shared/corpus`, of which each is of one variety, and UD Bosque's documents by
their split; documents that are not in Portuguese are left out. Whole documents are judged, and single
paragraphs of at least eight words, at most 2,000 of a domain. *Answered* is what was not left as unknown;
*right* is of these. A domain whose texts took part in the fit (scripts/fit_variety.py) says so: its figures
are no test.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

from machine import facts
from results import command, progress, table, write_section
from rule_loss import documents_of

from ptbr_slm.data.document import Document
from ptbr_slm.data.stages.clean import Clean
from ptbr_slm.data.stages.language import KeepPortuguese, TagLanguage
from ptbr_slm.data.stages.stage import run
from ptbr_slm.data.stages.variety import MIN_CONFIDENCE, UNKNOWN, identify_variety

SHARED = Path("../shared")
LEAST_WORDS = 8
MOST_PARAGRAPHS = 2_000
SOURCES = (
    # (path below the corpus, variety, name of the domain in the fit)
    ("machado", "br", "machado"),
    ("eltec-por", "pt", "eltec"),
    ("modern/vue-docs-pt.txt", "pt", "vue"),
    ("modern/copom-atas.txt", "br", "copom"),
    ("modern/d2l-pt.txt", "br", "d2l"),
    ("modern/iot-for-beginners-pt-br.txt", "br", "iot"),
    ("modern/rust-book-pt-br.txt", "br", "rust"),
    ("modern/tensorflow-docs-pt-br.txt", "br", "tensorflow"),
    ("modern/react-docs-pt-br.txt", "br", "react"),
    ("modern/hf-course-pt.txt", "br", "hf"),
    ("modern/laws-lexml.txt", "br", "laws"),
    ("modern/ulysses-bills.txt", "br", "ulysses"),
    ("modern/lener-br.txt", "br", "lener"),
    ("python-docs-pt-br.txt", "br", "pydocs"),
)
BINS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class Judged:
    """The answers to texts of one variety."""

    variety: str
    """`br` or `pt`: what they are."""
    probabilities: tuple[float, ...]
    """Of that variety, for each text."""
    codes: tuple[str, ...]

    @property
    def answered(self) -> int:
        """Texts whose variety was named."""
        return sum(code != UNKNOWN for code in self.codes)

    @property
    def right(self) -> int:
        """Texts whose variety was named rightly."""
        return sum(code == self.variety for code in self.codes)

    def cells(self) -> list[str]:
        """Texts, the share answered, and the share right of these."""
        if not self.codes:
            return ["", "", ""]
        answered = f"{100 * self.answered / len(self.codes):.0f} %"
        right = f"{100 * self.right / self.answered:.1f} %" if self.answered else ""
        return [f"{len(self.codes):,}", answered, right]


def judge(texts: Iterable[str], variety: str, min_confidence: float = MIN_CONFIDENCE) -> Judged:
    """Ask for the variety of each text."""
    found = [identify_variety(text, min_confidence=min_confidence) for text in texts]
    probabilities = (one.brazilian if variety == "br" else 1 - one.brazilian for one in found)
    return Judged(variety, tuple(probabilities), tuple(one.code for one in found))


def paragraphs(texts: Iterable[str]) -> list[str]:
    """Lines of at least `LEAST_WORDS` words; a sample of `MOST_PARAGRAPHS` where there are more."""
    found = [line for text in texts for line in text.split("\n") if len(line.split()) >= LEAST_WORDS]
    return random.Random(0).sample(found, MOST_PARAGRAPHS) if len(found) > MOST_PARAGRAPHS else found


def calibration(judged: Sequence[Judged]) -> str:
    """Table: the probability of the likelier variety, and how often it is right; each domain weighs alike."""
    rows = []
    for low, high in pairwise(BINS):
        shares, rights = [], []
        for domain in judged:
            inside = [
                value
                for value in domain.probabilities
                if value != 0.5 and low <= max(value, 1 - value) < high + (high == BINS[-1])
            ]
            shares.append(len(inside) / max(len(domain.codes), 1))
            rights.append(sum(value > 0.5 for value in inside) / max(len(domain.codes), 1))
        right = f"{100 * sum(rights) / sum(shares):.1f} %" if sum(shares) else ""
        rows.append([f"{low:.2f} to {high:.2f}", f"{100 * sum(shares) / len(judged):.1f} %", right])
    return table(["probability said", "of the paragraphs", "right"], rows)


def domains(corpus: Path, bosque: Path) -> Iterator[tuple[str, str, str, list[str]]]:
    """(what to call it, name in the fit, variety, texts) of every domain that is there."""
    rows = [json.loads(line) for line in bosque.read_text(encoding="utf-8").splitlines()]
    for label in ("pt-BR", "pt-PT"):
        for split in ("train", "dev", "test"):
            texts = [row["text"] for row in rows if (row["variety"], row["ud_split"]) == (label, split)]
            yield f"Bosque {split}", "bosque", label[-2:].lower(), texts
    stages = (Clean(), TagLanguage(), KeepPortuguese())
    for path, variety, name in SOURCES:
        found = (run(stages, document) for document in documents_of(corpus / path))
        yield Path(path).stem, name, variety, [text.text for text in found if isinstance(text, Document)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--corpus", type=Path, default=SHARED / "corpus")
    parser.add_argument("--bosque", type=Path, default=SHARED / "evaluation/variety_bosque_a.jsonl")
    parser.add_argument("--min-confidence", type=float, default=MIN_CONFIDENCE)
    parser.add_argument("--write", action="store_true", help="write the tables into docs/benchmarks.md")
    arguments = parser.parse_args()
    if missing := [path for path in (arguments.corpus, arguments.bosque) if not path.exists()]:
        parser.error(f"{missing[0]} does not exist")
    stored = json.loads(files("ptbr_slm.data.stages").joinpath("variety.json").read_text("utf-8"))
    rows, outside = [], []
    for shown, name, variety, texts in domains(arguments.corpus, arguments.bosque):
        progress(shown)
        whole = judge(texts, variety, arguments.min_confidence)
        single = judge(paragraphs(texts), variety, arguments.min_confidence)
        fitted = name in stored["domains"]
        if not fitted:
            outside.append(single)
        rows.append([f"{shown}, {variety}{', fitted on' if fitted else ''}", *whole.cells(), *single.cells()])
    header = ["domain", "documents", "answered", "right", "paragraphs", "answered", "right"]
    lines = [
        f"`{command()}`",
        "",
        facts(["numpy"], 1),
        "",
        f"Named from a probability of {arguments.min_confidence:g}. Fitted on: "
        f"{', '.join(stored['domains'])}.",
        "",
        table(header, rows),
        "",
        "Paragraphs of the domains that were not fitted on, each domain weighed alike:",
        "",
        calibration(outside),
    ]
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        write_section("variety", text)


if __name__ == "__main__":
    main()
