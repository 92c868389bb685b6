"""`evaluate`: all that is measured of a model, in one run: bits per byte, grammar, tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.answers import Answers, AnswersKey
from ptbr_slm.eval.benchmark import Benchmark
from ptbr_slm.eval.results import ModelFacts, Results, TaskRecord
from ptbr_slm.eval.run import run_benchmark
from ptbr_slm.eval.subject import Subject


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is asked."""

    limit: int | None = None
    """Items of each benchmark; None: all."""
    seconds: float | None = None
    """For all benchmarks together; each begins at least one batch."""
    answers: Path | None = None
    """Folder of the answers kept (`ptbr_slm.eval.answers`); None keeps none."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured of a model, and what happened to its answers."""

    results: Results
    unkept: SlmError | None
    """Why answers could not be kept, if so."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an evaluation is."""

    title: str
    """Of what is asked now."""
    done: int
    """Items, of all benchmarks."""
    of: int
    asked_per_second: float


def evaluate(
    subject: Subject,
    benchmarks: Sequence[Benchmark],
    settings: Settings,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Evaluation:
    """Run the benchmarks one after the other, each with its share of the time that is left.

    An exception leaves the answers so far in the folder of answers. Raises as `run_benchmark`.
    """
    clock = _Clock(sum(len(benchmark.order(settings.limit)) for benchmark in benchmarks), on_progress)
    found: list[TaskRecord] = []
    unkept = None
    for benchmark in benchmarks:
        key = AnswersKey(subject.identity, benchmark.task.name, benchmark.sha256, benchmark.data_sha256)
        answers = Answers(key, settings.answers)
        share = None
        if settings.seconds is not None:
            share = max(0.0, settings.seconds - clock.seconds) / (len(benchmarks) - len(found))
        clock.begin(benchmark.title)
        result = run_benchmark(
            subject, benchmark, limit=settings.limit, seconds=share, answers=answers, on_batch=clock.advance
        )
        clock.end(len(benchmark.order(settings.limit)), result.asked)
        found.append(result.record())
        unkept = unkept or answers.failure
    model = ModelFacts(subject.name, subject.identity, subject.parameters, subject.context)
    return Evaluation(Results(model, (), tuple(found), seconds=clock.seconds), unkept)


class _Clock:
    """Counts items over all benchmarks."""

    def __init__(self, of: int, tell: Callable[[Progress], None]) -> None:
        self._of, self._tell = of, tell
        self._began = time.monotonic()
        self._title, self._done, self._asked = "", 0, 0

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def begin(self, title: str) -> None:
        """A benchmark begins."""
        self._title = title
        self.advance(0, 0)

    def advance(self, done: int, asked: int) -> None:
        """So many of the benchmark's items are done; so many of them were asked now."""
        rate = (self._asked + asked) / max(self.seconds, 1e-9)
        self._tell(Progress(self._title, self._done + done, self._of, rate))

    def end(self, items: int, asked: int) -> None:
        """The benchmark is over."""
        self._done += items
        self._asked += asked
