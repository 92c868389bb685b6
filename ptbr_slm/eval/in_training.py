"""Tasks for a model in training: the same items at each evaluation, few enough for a budget of seconds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ptbr_slm.eval.benchmark import select_benchmarks
from ptbr_slm.eval.run import TaskResult, run_benchmark
from ptbr_slm.eval.subject import LocalSubject
from ptbr_slm.runtime.model import Model

if TYPE_CHECKING:
    from ptbr_slm.model import Llama
    from ptbr_slm.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Score:
    """What a model in training scored in a task."""

    task: str
    value: float
    """A share, by the first metric of the task."""
    chance: float | None
    items: int
    """Items asked."""


class TasksInTraining:
    """Scores a model that is in memory, in the precision of its weights."""

    def __init__(self, names: Sequence[str], folders: Sequence[Path], seconds: float) -> None:
        """Raises as `select_benchmarks`: a name that is none, a file that is not there."""
        self._benchmarks = select_benchmarks(names, folders)
        self._seconds = seconds

    def score(self, model: Llama, tokenizer: Tokenizer, items: Mapping[str, int]) -> Sequence[Score]:
        """The score in each task. items: task -> items that were asked before, and are asked again.

        A task that was not asked before has its share of the seconds.
        """
        from ptbr_slm.runtime.engines.torch import TorchEngine

        found: list[TaskResult] = []
        deadline = time.monotonic() + self._seconds
        engine = TorchEngine.over(model, tokenizer)
        with LocalSubject(Path(), model=Model.over(engine, Path("modelo em treino"))) as subject:
            for benchmark in self._benchmarks:
                asked = items.get(benchmark.task.name)
                left = len(self._benchmarks) - len(found)
                share = max(0.0, deadline - time.monotonic()) / left
                seconds = share if asked is None else None
                found.append(run_benchmark(subject, benchmark, limit=asked, seconds=seconds))
        return [_score(result) for result in found]


def _score(result: TaskResult) -> Score:
    first = result.scores[0]
    return Score(result.task.name, first.value, result.task.facts.chance, len(result.items))
