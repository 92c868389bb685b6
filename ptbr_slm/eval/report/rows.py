"""What a reader sees of an evaluation, line by line: the one source of table, page, plot and model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ptbr_slm.eval.evaluation import Evaluation
from ptbr_slm.eval.run import TaskResult
from ptbr_slm.eval.statistics import Interval
from ptbr_slm.eval.tasks.metrics import Doubt, ItemResult, TaskScore, doubt, task_scores
from ptbr_slm.eval.tasks.task import Task
from ptbr_slm.text import number

METRICS = {
    "acc": "acertos",
    "acc_norm": "acertos, por caractere",
    "acc_bytes": "acertos, por byte",
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
    """One score."""

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
    protocol: str = ""

    @property
    def is_share(self) -> bool:
        """Whether it is shown in percent."""
        return self.metric != "perplexity"

    def shown(self, value: float, decimals: int = 1) -> str:
        """A value in the row's unit."""
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


def sections(found: Evaluation) -> list[Section]:
    """All rows of an evaluation: a section for each benchmark with parts, and one for the tasks."""
    parted = [_parts(result, found.parameters) for result in found.tasks if result.benchmark.parts]
    rows = [
        row for result in found.tasks if not result.benchmark.parts for row in _rows(result, found.parameters)
    ]
    return [*parted, *([Section("Tarefas", rows)] if rows else [])]


def _rows(result: TaskResult, parameters: int | None) -> list[Row]:
    return [_row(result.benchmark.title, result.task, score, len(result.items), result.of, parameters)
            for score in result.scores]  # fmt: skip


def _parts(result: TaskResult, parameters: int | None) -> Section:
    rows = []
    for part in result.benchmark.parts:
        items: list[ItemResult] = result.part(part.name)
        if items:
            (score, *_) = task_scores(result.task, items)
            rows.append(_row(part.title, result.task, score, len(items), part.size, parameters))
    (whole, *_) = result.scores
    total = _row("todos os fenômenos", result.task, whole, len(result.items), result.of, parameters)
    return Section(f"{result.benchmark.title} {result.task.facts.version}", [*rows, total])


def _row(name: str, task: Task, score: TaskScore, items: int, of: int, parameters: int | None) -> Row:
    facts = task.facts
    is_first = task.metrics[0].name == score.metric
    return Row(
        name=name,
        metric=score.metric,
        value=score.value,
        interval=score.interval,
        chance=score.baseline,
        items=items,
        of=of,
        reading=doubt(facts, score, parameters) or "",
        published=facts.published if is_first else {},
        protocol=facts.protocol,
    )
