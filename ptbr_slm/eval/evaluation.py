"""`evaluate`: all that is measured of a model, in one run: bits per byte, grammar, tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.answers import Answers, AnswersKey, keep_bits, known_bits
from ptbr_slm.eval.benchmark import Benchmark
from ptbr_slm.eval.bits_measure import WINDOW, measure_bits
from ptbr_slm.eval.bits_sources import HeldOutText
from ptbr_slm.eval.contamination import contamination_note
from ptbr_slm.eval.results import BitsRecord, ModelFacts, Refusal, Results, TaskRecord
from ptbr_slm.eval.run import run_benchmark
from ptbr_slm.eval.subject import Subject

_TEXT_ITEMS = 200
"""What a held-out text counts in the progress, in items."""


@dataclass(frozen=True, slots=True)
class HeldOutTexts:
    """The texts for bits per byte."""

    texts: Sequence[HeldOutText] = ()
    seq_len: int = WINDOW
    """Tokens of a window."""
    trained_on: Path | None = None
    """Prepared data of the model's training, where they are known: the texts are looked for in them."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is asked."""

    limit: int | None = None
    """Items of each benchmark; None: all."""
    seconds: float | None = None
    """For all benchmarks together; each begins at least one batch. Held-out texts are always read whole."""
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
    share: float
    """Of all, 0 to 1."""
    asked_per_second: float
    """Items; 0 before the first."""


def evaluate(
    subject: Subject,
    benchmarks: Sequence[Benchmark],
    settings: Settings,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    *,
    held_out: HeldOutTexts | None = None,
) -> Evaluation:
    """Read the held-out texts, then run the benchmarks one after the other, each with its share of the time.

    A text that the model's tokenizer does not give back is refused, and the rest goes on. An exception leaves
    the answers so far in the folder of answers. Raises as `measure_bits` and `run_benchmark`.
    """
    held_out = held_out or HeldOutTexts()
    items = sum(len(benchmark.order(settings.limit)) for benchmark in benchmarks)
    clock = _Clock(items + _TEXT_ITEMS * len(held_out.texts), on_progress)
    bits: list[BitsRecord] = []
    refused: list[Refusal] = []
    for text in held_out.texts:
        clock.begin(text.name)
        try:
            bits.append(_bits(subject, text, held_out, settings.answers, clock))
        except SlmError as error:
            if error.code != "E_TOKENIZER_LOSSY":
                raise
            refused.append(Refusal(text.name, error.code, error.message))
        clock.end(_TEXT_ITEMS)
    tasks: list[TaskRecord] = []
    unkept = None
    for benchmark in benchmarks:
        key = AnswersKey(subject.identity, benchmark.task.name, benchmark.sha256, benchmark.data_sha256)
        answers = Answers(key, settings.answers)
        share = None
        if settings.seconds is not None:
            share = max(0.0, settings.seconds - clock.seconds) / (len(benchmarks) - len(tasks))
        clock.begin(benchmark.title)
        result = run_benchmark(
            subject, benchmark, limit=settings.limit, seconds=share, answers=answers, on_batch=clock.items
        )
        clock.end(len(benchmark.order(settings.limit)))
        tasks.append(result.record())
        unkept = unkept or answers.failure
    model = ModelFacts(subject.name, subject.identity, subject.parameters, subject.context)
    return Evaluation(Results(model, tuple(bits), tuple(tasks), tuple(refused), clock.seconds), unkept)


def _bits(
    subject: Subject, text: HeldOutText, held_out: HeldOutTexts, answers: Path | None, clock: _Clock
) -> BitsRecord:
    """Measured, or known; with a note where training may have seen the text."""
    key = AnswersKey(subject.identity, f"bits-{text.name}", str(held_out.seq_len), text.sha256)
    record = known_bits(key, answers)
    if record is None:
        record = measure_bits(
            subject,
            text,
            seq_len=held_out.seq_len,
            advance=lambda share: clock.advance(share * _TEXT_ITEMS),
        )
        keep_bits(key, answers, record)
    note = contamination_note(held_out.trained_on, text)
    return replace(record, notes=(*record.notes, note)) if note else record


@dataclass(slots=True)
class _Clock:
    """Adds up the progress of texts and benchmarks."""

    of: int
    tell: Callable[[Progress], None]
    began: float = field(default_factory=time.monotonic)
    title: str = ""
    done: float = 0
    """Of what is over."""
    began_asking: float = 0.0

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.began

    def begin(self, title: str) -> None:
        """A text or a benchmark begins."""
        self.title, self.began_asking = title, time.monotonic()
        self.advance(0)

    def advance(self, done: float, rate: float = 0.0) -> None:
        """So much of it is done."""
        self.tell(Progress(self.title, min(1.0, (self.done + done) / max(1, self.of)), rate))

    def items(self, done: int, asked: int) -> None:
        """So many of its items are done; so many of them were asked now."""
        self.advance(done, asked / max(time.monotonic() - self.began_asking, 1e-9))

    def end(self, size: int) -> None:
        """It is over, and counted `size`."""
        self.done += size
