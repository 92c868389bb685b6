"""What a reader sees of results, line by line: the one source of table, page, plot and model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ptbr_slm.eval.results import BitsRecord, Results, TaskRecord
from ptbr_slm.eval.statistics import Interval, wilson_interval
from ptbr_slm.eval.tasks.metrics import Doubt, TaskScore, doubt
from ptbr_slm.text import number

METRICS = {
    "acc": "acertos",
    "acc_norm": "por caractere",
    "acc_bytes": "por byte",
    "exact_match": "acertos",
    "f1": "F1",
    "perplexity": "perplexidade",
}
"""Metric -> what a reader is told; shares are shown in percent."""
READINGS: Mapping[str, str] = {
    Doubt.CHANCE: "o intervalo contém o que acerta quem adivinha; não se conclui nada.",
    Doubt.BELOW: "acerta menos do que quem adivinha: é levado por uma pista errada.",
    Doubt.SIZE: "neste tamanho os modelos publicados não passam do acaso; não se conclui nada.",
}
"""Why a score is no claim -> the same in a sentence."""


@dataclass(frozen=True, slots=True)
class Row:
    """One score of a task, or of a part of it."""

    name: str
    metric: str
    """A key of `METRICS`."""
    value: float
    """A share, or for perplexity the figure itself."""
    interval: Interval | None
    chance: float | None
    items: int
    of: int
    reading: str = ""
    """Why it is no claim: a key of `READINGS`; empty where it may be one."""
    published: Mapping[str, float] = field(default_factory=dict)
    """model -> share, by the same protocol."""

    @property
    def is_share(self) -> bool:
        """Whether it is shown in percent."""
        return self.metric != "perplexity"

    @property
    def unit(self) -> str:
        """The metric, where it is not the usual one."""
        return "" if METRICS[self.metric] == "acertos" else METRICS[self.metric]

    @property
    def label(self) -> str:
        """Name and metric."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    @property
    def shown_items(self) -> str:
        """As in `300 de 646`."""
        return number(self.items) if self.items == self.of else f"{number(self.items)} de {number(self.of)}"

    def shown(self, value: float, decimals: int = 1) -> str:
        """A value in the row's unit; a perplexity of millions by its power of ten."""
        if not self.is_share and value >= 1e6:
            return f"{value:.1e}".replace(".", ",").replace("e+", "e")
        return number(100 * value if self.is_share else value, decimals)

    @property
    def shown_interval(self) -> str:
        """As in `24,8 a 35,1`; without decimals where it is wide."""
        if self.interval is None:
            return ""
        wide = self.is_share and self.interval.high - self.interval.low >= 0.1
        ends = (self.shown(end, 0 if wide else 1) for end in (self.interval.low, self.interval.high))
        return " a ".join(ends)


@dataclass(frozen=True, slots=True)
class Section:
    """Rows under a heading."""

    title: str
    rows: Sequence[Row]
    protocols: Sequence[tuple[str, str]]
    """(task, how it is asked and judged)."""


def sections(results: Results) -> list[Section]:
    """A section for each task with parts, and one for the others."""
    found = []
    for record in results.tasks:
        if record.parts:
            title = f"{record.title} {record.version}"
            rows = _part_rows(record, results.model.parameters)
            found.append(Section(title, rows, [(record.title, record.protocol)]))
    plain = [record for record in results.tasks if not record.parts]
    if plain:
        rows = [row for record in plain for row in task_rows(record, results.model.parameters)]
        found.append(Section("Tarefas", rows, [(record.title, record.protocol) for record in plain]))
    return found


def task_rows(record: TaskRecord, parameters: int | None) -> list[Row]:
    """A row for each metric of a whole task."""
    published: Mapping[str, float] = record.facts.get("published", {})
    return [
        Row(
            name=record.title,
            metric=score.metric,
            value=score.value,
            interval=score.interval,
            chance=score.baseline,
            items=len(record.items),
            of=record.of,
            reading=_reading(record, score, parameters),
            published={} if index else published,
        )
        for index, score in enumerate(record.scores)
    ]


def _part_rows(record: TaskRecord, parameters: int | None) -> list[Row]:
    """Of the first metric, which is right or wrong: the whole, then a row a part."""
    (whole, *_), first = task_rows(record, parameters), record.scores[0]
    rows = [replace(whole, name="todos os fenômenos", published={})]
    for part in record.parts:
        values = [item.values[first.metric] for item in record.items if part.holds(item.id)]
        if values:
            interval = wilson_interval(sum(values), len(values))
            score = replace(first, value=sum(values) / len(values), interval=interval)
            rows.append(
                replace(
                    rows[0],
                    name=part.title,
                    value=score.value,
                    interval=interval,
                    items=len(values),
                    of=part.size,
                    reading=_reading(record, score, parameters),
                )
            )
    return rows


def _reading(record: TaskRecord, score: TaskScore, parameters: int | None) -> str:
    return doubt(score, record.facts.get("meaningful_from", 0), parameters) or ""


def bits_cells(record: BitsRecord) -> list[str]:
    """Value, interval, documents, targets of a text, as shown."""
    interval = record.interval
    ends = "" if interval is None else f"{number(interval.low, 3)} a {number(interval.high, 3)}"
    return [number(record.value, 3), ends, number(len(record.documents)), number(record.targets)]
