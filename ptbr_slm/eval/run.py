"""Ask a model the items of benchmarks, batch by batch, and judge the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ptbr_slm.eval.answers import Answers
from ptbr_slm.eval.benchmark import Benchmark
from ptbr_slm.eval.results import TaskRecord
from ptbr_slm.eval.subject import Subject
from ptbr_slm.eval.tasks.items import Item
from ptbr_slm.eval.tasks.metrics import ItemResult, TaskScore, judge_choices, judge_text, task_scores
from ptbr_slm.eval.tasks.task import OutputType, Task

_SHOWN_FACTS = ("licence", "source", "chance", "constant", "meaningful_from", "published", "non_commercial")
"""Of `TaskFacts`, what results keep beside title, version and protocol."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A model's answers to a benchmark, and what they are worth."""

    benchmark: Benchmark
    items: list[ItemResult]
    """In the order of the file."""
    scores: list[TaskScore]
    asked: int
    """Items that the model was asked now; the answers to the others were known."""
    seconds: float

    @property
    def task(self) -> Task:
        """The benchmark's."""
        return self.benchmark.task

    @property
    def of(self) -> int:
        """Items that the task has; more than `items` where a limit or the time ended it."""
        return self.benchmark.size

    def record(self) -> TaskRecord:
        """The same as it is kept on disk."""
        facts = {name: getattr(self.task.facts, name) for name in _SHOWN_FACTS}
        return TaskRecord(
            name=self.task.name,
            title=self.benchmark.title,
            version=self.task.facts.version,
            protocol=self.task.facts.protocol,
            task_sha256=self.benchmark.sha256,
            data_sha256=self.benchmark.data_sha256,
            of=self.of,
            scores=tuple(self.scores),
            items=tuple(self.items),
            parts=self.benchmark.parts,
            facts={name: value for name, value in facts.items() if value not in (None, {}, 0, False)},
        )


def run_benchmark(
    subject: Subject,
    benchmark: Benchmark,
    *,
    limit: int | None = None,
    seconds: float | None = None,
    answers: Answers | None = None,
    on_batch: Callable[[int, int], None] = lambda done, asked: None,
) -> TaskResult:
    """Ask the items, or `limit` of them, or those that `seconds` suffice for: at least one batch.

    answers: what is known is not asked again, and each batch is added. on_batch: called with the items done
    and those of them that were asked now. Raises E_TASK for a broken row, and what the subject raises.
    """
    began = time.monotonic()
    numbers = benchmark.order(limit)
    found: dict[int, ItemResult] = {}
    asked = 0
    for held, batch in benchmark.batches(numbers):
        known = [None if answers is None else answers.get(item.id, item.sha256) for item in batch]
        open_items = [item for item, result in zip(batch, known, strict=True) if result is None]
        if open_items and asked and seconds is not None and time.monotonic() - began >= seconds:
            break
        fresh = iter(answer(subject, benchmark.task, open_items))
        results = [next(fresh) if result is None else result for result in known]
        found |= dict(zip(held, results, strict=True))
        if open_items and answers is not None:
            answers.add([result for result, before in zip(results, known, strict=True) if before is None])
        asked += len(open_items)
        on_batch(len(found), asked)
    items = [found[number] for number in sorted(found)]
    scores = task_scores(benchmark.task, items)
    return TaskResult(benchmark, items, scores, asked, time.monotonic() - began)


def answer(subject: Subject, task: Task, items: Sequence[Item]) -> list[ItemResult]:
    """The judged answers to a batch, in the items' order."""
    if not items:
        return []
    if task.output_type is OutputType.GENERATE_UNTIL:
        found = subject.continue_text([item.prompt for item in items], task.until, task.max_new_tokens)
        return [judge_text(task, item, each.text, each.cut) for item, each in zip(items, found, strict=True)]
    scored = subject.score((item.prompt, item.choices) for item in items)
    return [judge_choices(task, item, scores) for item, scores in zip(items, scored, strict=True)]
