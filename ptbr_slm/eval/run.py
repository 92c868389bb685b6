"""Ask a model the items of a task, in batches, and judge the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from ptbr_slm.eval.subject import Subject
from ptbr_slm.eval.tasks.documents import TaskData
from ptbr_slm.eval.tasks.items import Item, task_items
from ptbr_slm.eval.tasks.metrics import ItemResult, TaskScore, judge_choices, judge_text, task_scores
from ptbr_slm.eval.tasks.task import OutputType, Task

_TEXTS_AT_ONCE = 16
"""Prompts that are continued as one batch."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A model's answers to a task, and what they are worth."""

    task: Task
    data_sha256: str
    items: list[ItemResult]
    scores: list[TaskScore]
    of: int
    """Items that the task has; more than `items` where a limit ended it."""
    seconds: float


def run_task(
    subject: Subject,
    task: Task,
    data: TaskData,
    *,
    limit: int | None = None,
    on_item: Callable[[int, int], None] = lambda done, of: None,
) -> TaskResult:
    """Ask every item, or the first `limit`. on_item: called with items done and items in all."""
    began = time.monotonic()
    items = list(task_items(task, data.rows[:limit], data.fewshot_rows))
    results = []
    for result in answer(subject, task, items):
        results.append(result)
        on_item(len(results), len(items))
    seconds = time.monotonic() - began
    return TaskResult(task, data.sha256, results, task_scores(task, results), len(data.rows), seconds)


def answer(subject: Subject, task: Task, items: Sequence[Item]) -> Iterator[ItemResult]:
    """The judged answers, in the items' order."""
    if task.output_type is OutputType.GENERATE_UNTIL:
        for batch in _batches(items, _TEXTS_AT_ONCE):
            found = subject.continue_text([item.prompt for item in batch], task.until, task.max_new_tokens)
            for item, continuation in zip(batch, found, strict=True):
                yield judge_text(task, item, continuation.text, continuation.cut)
    else:
        scored = subject.score((item.prompt, item.choices) for item in items)
        for item, scores in zip(items, scored, strict=True):
            yield judge_choices(task, item, scores)


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
