"""Reads a prepared folder for its audit: counts of every document, and a sample with figures and excerpts.

Counts come from the index and from all records. Examples and thresholds come from a sample: the documents
with the lowest hashes (the same ones again for the same data), and those nearest to each threshold. Where no
figures are stored, they are measured on the text that the tokens of a sampled document decode to.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np

from ptbr_slm.data.document import REASONS, Attribute, Document
from ptbr_slm.data.index import SPLITS, SplitName, corrupt
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.presets import preset
from ptbr_slm.data.records import GROUPS, Group, Record, has_records, read_records
from ptbr_slm.data.stages.figures import measure
from ptbr_slm.data.stages.rules import FigureRule
from ptbr_slm.tokenizer import Tokenizer

SAMPLED = {"kept": 800, "dropped": 400}
"""Documents of the sample."""
NEAREST = 6
"""Documents beyond the sample, on each side of each threshold."""
EXAMPLES = 5
"""Dropped documents shown for each reason."""
EXCERPT = 280
"""Characters of an excerpt."""
_MEASURED_TOKENS = 4_096
"""Tokens of a document that are decoded where its figures are not stored."""
TAGS = ("language", "variety", "spelling")
"""Attributes whose values are counted."""
_MASKED = "masked_"
"""What begins the attributes of `MaskPersonalData`."""
_SPLIT_NAMES: dict[SplitName, str] = {"train": "treino", "valid": "validação"}
_MOST_SOURCES = 30
_LINE = re.compile(r"(?::\d+)+$")


@dataclass(frozen=True, slots=True)
class Rule:
    """One threshold of the preset `web`."""

    figure: str
    """A key of `figures.FIGURES`."""
    reason: str
    """A key of `document.REASONS`."""
    threshold: float
    is_least: bool
    """Whether smaller figures are dropped; larger ones otherwise."""
    active: bool
    """Whether it dropped something here."""

    @property
    def title(self) -> str:
        """What is wrong with a document that it drops."""
        length = re.search(r"_(\d+)_", self.figure)
        return REASONS[self.reason] + (f" ({length[1]} seguidas)" if length else "")

    def drops(self, value: float | None) -> bool:
        """Whether a document with this figure is dropped."""
        if value is None:
            return False
        return value < self.threshold if self.is_least else value > self.threshold


@dataclass(frozen=True, slots=True)
class Sampled:
    """A document of the sample."""

    source: str
    excerpt: str
    bytes: int
    reason: str
    """Why it was dropped; empty where it was kept."""
    values: tuple[float | None, ...]
    """Its figures, in the order of `Audit.figures`; None where unknown."""
    weight: float
    """Documents that it stands for; 0 for those that are only examples of a threshold."""


@dataclass(slots=True)
class SourceCounts:
    """Documents of a source."""

    kept: int = 0
    bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    licences: set[str] = field(default_factory=set)

    def add(self, other: SourceCounts) -> None:
        """Count the documents of another source here too."""
        self.kept += other.kept
        self.bytes += other.bytes
        self.dropped += other.dropped
        self.licences |= other.licences


@dataclass(slots=True)
class Audit:
    """What the page shows."""

    data: PreparedData
    complete: bool
    """Whether the folder has records; without them sources and dropped texts are unknown."""
    rules: list[Rule]
    figures: list[str]
    sample: list[Sampled]
    sources: dict[str, SourceCounts]
    licences: Counter[str]
    """Licence -> kept documents."""
    tags: dict[str, Counter[str]]
    """`language`, `variety`, `spelling` -> value -> kept documents."""
    dropped_tags: dict[str, Counter[str]]
    """The same of dropped documents."""
    masked: Counter[str]
    """Kind of personal data -> how often it was masked in kept documents."""
    copies: Counter[int]
    """Size of a group of near copies, over 1 -> groups, of which one document is kept."""
    examples: dict[str, list[Record]]
    """Reason -> dropped documents, the nearest to the threshold first."""
    lengths: dict[SplitName, Counter[int]]
    """Split -> power of two -> documents of at least 2**k tokens and fewer than 2**(k + 1)."""

    @property
    def margin(self) -> float:
        """How far a share that the sample estimates is from that of all documents, 95 times in 100, at most.

        0 where every document is in the sample. Of a stratified sample of kept and dropped documents
        (Cochran, Sampling Techniques, 3rd edition, section 5.6), for the least certain share, one half.
        """
        strata: dict[bool, list[float]] = {True: [], False: []}
        for sampled in self.sample:
            if sampled.weight:
                strata[bool(sampled.reason)].append(sampled.weight)
        whole = sum(map(sum, strata.values())) or 1.0
        variance = sum(
            (sum(weights) / whole) ** 2 * (1 - len(weights) / sum(weights)) / len(weights) / 4
            for weights in strata.values()
            if weights
        )
        return 1.96 * math.sqrt(max(variance, 0.0))


def collect(data: PreparedData) -> Audit:
    """Read the folder of `data`; its records are checked first. Memory holds the sample.

    Raises E_DATA_CORRUPT.
    """
    data.check_records(hashes=True)
    rules = web_rules(data.index.dropped.keys())
    audit = Audit(
        data=data,
        complete=has_records(data.folder),
        rules=rules,
        figures=list(dict.fromkeys(rule.figure for rule in rules)),
        sample=[],
        sources={},
        licences=Counter(),
        tags={tag: Counter() for tag in TAGS},
        dropped_tags={tag: Counter() for tag in TAGS},
        masked=Counter(),
        copies=Counter(),
        examples={},
        lengths={name: _length_bins(data.split(name).document_offsets()) for name in SPLITS},
    )
    pool = _Pool(rules)
    for group, position, record in _all_records(data, audit.complete):
        if audit.complete:
            _count(audit, record)
        pool.add(group, position, record)
    audit.sources = _merged_sources(audit.sources)
    audit.sample = _sample(audit, pool, data.load_tokenizer())
    audit.examples = {
        reason: [record for _, _, record in sorted(kept, key=lambda entry: -entry[0])]
        for reason, kept in sorted(pool.examples.items())
    }
    return audit


def web_rules(dropped: Iterable[str]) -> list[Rule]:
    """The thresholds of the preset `web`; `dropped` names the reasons that dropped something."""
    seen = set(dropped)
    rules: list[Rule] = []
    for stage in preset("web").filtering:
        if isinstance(stage, FigureRule):
            if stage.below:
                rules.append(Rule(stage.name, stage.below, stage.least, True, stage.below in seen))
            if stage.above:
                rules.append(Rule(stage.name, stage.above, stage.most, False, stage.above in seen))
    return rules


def source_of(source: str) -> str:
    """The file of a document's source: without the line, row or paragraph."""
    return _LINE.sub("", source)


_Position = tuple[Group, int]


class _Pool:
    """Chooses the sample in one pass: the lowest hashes, the nearest to each threshold, the examples."""

    def __init__(self, rules: list[Rule]) -> None:
        self.rules = rules
        self.seen = {"kept": 0, "dropped": 0}
        self.lowest: dict[str, list[tuple[float, _Position, Record]]] = {"kept": [], "dropped": []}
        self.nearest: dict[tuple[int, bool], list[tuple[float, _Position, Record]]] = {}
        self.examples: dict[str, list[tuple[float, _Position, Record]]] = {}

    def add(self, group: Group, position: int, record: Record) -> None:
        kind = "dropped" if group == "dropped" else "kept"
        self.seen[kind] += 1
        place = (group, position)
        key = hashlib.blake2b(f"{group} {position} {record.source}".encode("utf-8", "surrogatepass"))
        rank = int.from_bytes(key.digest()[:6]) / 2**48
        _keep_largest(self.lowest[kind], (-rank, place, record), SAMPLED[kind])
        for number, rule in enumerate(self.rules):
            value = record.attributes.get(rule.figure)
            if isinstance(value, int | float) and math.isfinite(value):
                side = self.nearest.setdefault((number, rule.drops(value)), [])
                _keep_largest(side, (-abs(value - rule.threshold), place, record), NEAREST)
        if record.reason:
            shown = self.examples.setdefault(record.reason, [])
            _keep_largest(shown, (-_distance(record), place, record), EXAMPLES)


def _keep_largest(
    heap: list[tuple[float, _Position, Record]], entry: tuple[float, _Position, Record], most: int
) -> None:
    """Keep the `most` entries with the largest first number; of equal ones the earlier document."""
    if len(heap) < most:
        heapq.heappush(heap, _Entry(entry))
    elif entry[0] > heap[0][0]:
        heapq.heapreplace(heap, _Entry(entry))


class _Entry(tuple[float, _Position, Record]):
    """Ordered by its number and place: records have no order."""

    def __lt__(self, other: object) -> bool:
        assert isinstance(other, tuple)
        return (self[0], self[1]) < (other[0], other[1])


def _distance(record: Record) -> float:
    """How far beyond its threshold a dropped document is, as a share of the threshold; 0 without one."""
    bound = record.figures.get("least", record.figures.get("most"))
    values = [value for name, value in record.figures.items() if name not in ("least", "most")]
    return abs(values[0] - bound) / (abs(bound) or 1.0) if values and bound is not None else 0.0


def _all_records(data: PreparedData, complete: bool) -> Iterator[tuple[Group, int, Record]]:
    """(group, number in the group, record); records without a source where the folder has none."""
    if complete:
        for group in GROUPS:
            for position, record in enumerate(read_records(data.folder, group)):
                yield group, position, record
        return
    for split in SPLITS:
        for position in range(data.split(split).documents):
            yield split, position, Record(f"{_SPLIT_NAMES[split]}, documento {position + 1}")


def _count(audit: Audit, record: Record) -> None:
    counts = audit.sources.setdefault(source_of(record.source), SourceCounts())
    counts.licences.add(record.licence)
    for tag, values in (audit.dropped_tags if record.reason else audit.tags).items():
        if tag in record.attributes:
            values[str(record.attributes[tag])] += 1
    if record.reason:
        counts.dropped[record.reason] += 1
        return
    counts.kept += 1
    counts.bytes += record.bytes
    audit.licences[record.licence] += 1
    for name, value in record.attributes.items():
        if name == "copies" and isinstance(value, int | float):
            audit.copies[int(value)] += 1
        elif name.startswith(_MASKED) and isinstance(value, int | float):
            audit.masked[name.removeprefix(_MASKED)] += int(value)


def _merged_sources(sources: dict[str, SourceCounts]) -> dict[str, SourceCounts]:
    """The sources, largest first; where they are many, files of a folder count together."""
    while len(sources) > _MOST_SOURCES:
        merged: dict[str, SourceCounts] = {}
        for name, counts in sources.items():
            folder = str(PurePath(name).parent)
            merged.setdefault(name if folder == "." else folder, SourceCounts()).add(counts)
        if len(merged) == len(sources):
            break
        sources = merged
    ordered = sorted(sources.items(), key=lambda item: (-item[1].bytes, item[0]))
    shown = dict(ordered[:_MOST_SOURCES])
    for _, counts in ordered[_MOST_SOURCES:]:
        shown.setdefault("outras", SourceCounts()).add(counts)
    return shown


def _sample(audit: Audit, pool: _Pool, tokenizer: Tokenizer) -> list[Sampled]:
    """The chosen documents, each once, in the order of the data."""
    weights: dict[_Position, float] = {}
    chosen: dict[_Position, Record] = {}
    for kind, entries in pool.lowest.items():
        for _, place, record in entries:
            chosen[place] = record
            weights[place] = pool.seen[kind] / len(entries)
    for entries in pool.nearest.values():
        for _, place, record in entries:
            chosen.setdefault(place, record)
    sampled = []
    for place, record in sorted(chosen.items(), key=lambda item: item[0]):
        text = record.excerpt
        if not record.reason:
            stored = all(name in record.attributes for name in audit.figures)
            text = _decoded(audit.data, place, tokenizer, EXCERPT if stored else _MEASURED_TOKENS)
        document = Document(text, record.source, attributes=record.attributes)
        values = tuple(_value(name, record, document) for name in audit.figures)
        excerpt = " ".join(text[: 2 * EXCERPT].split())[:EXCERPT]
        size = record.bytes or len(text.encode("utf-8", "surrogatepass"))
        sampled.append(Sampled(record.source, excerpt, size, record.reason, values, weights.get(place, 0.0)))
    return sampled


def _value(name: str, record: Record, document: Document) -> float | None:
    """A stored figure, or for a kept document the figure of its text."""
    stored: Attribute | None = record.attributes.get(name)
    if stored is not None:
        return float(stored) if isinstance(stored, int | float) and math.isfinite(stored) else None
    return None if record.reason or not document.text else measure(name, document)


def _decoded(data: PreparedData, place: _Position, tokenizer: Tokenizer, most_tokens: int) -> str:
    """The beginning of a kept document. Raises E_DATA_CORRUPT for more records than documents."""
    group, position = place
    assert group != "dropped"
    split = data.split(group)
    if position >= split.documents:
        raise corrupt("há mais registros que documentos.", data.folder)
    start, stop = (int(offset) for offset in split.document_offsets()[position : position + 2])
    return tokenizer.decode(split.read(start, min(stop, start + most_tokens)).tolist())


def _length_bins(offsets: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Counter[int]:
    lengths = np.diff(offsets)
    powers = np.log2(np.maximum(lengths, 1)).astype(np.int64)
    values, counts = np.unique(powers, return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))
