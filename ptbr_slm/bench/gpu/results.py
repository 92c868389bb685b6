"""What the process of a section is asked, and what it answers: lines of figures, and checks that can fail."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ptbr_slm.errors import EXTRA_OF, Exit, SlmError
from ptbr_slm.storage.atomic import write_json


@dataclass(frozen=True, kw_only=True, slots=True)
class SectionRequest:
    """One section, on one device, within a time."""

    section: str
    device: str
    """`cuda` or `cpu`."""
    cards: int
    """Visible GPUs; 0 on a CPU."""
    smoke: bool
    """Whether everything is shrunk, to try the code and not the card."""
    limit_s: float
    """Seconds until the process is ended."""
    exporter: str = ""
    """Module that exports a model: what is below it in the layers cannot import it."""
    environment: dict[str, str] = field(default_factory=dict)
    """What the processes that run exports get on top: the unpacked wheels."""
    wheels: str = ""
    """What was found in `--wheels`, for the reader; empty where it was not given."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What earlier sections found."""
    began: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        """Seconds until this process is ended."""
        return self.limit_s - (time.monotonic() - self.began)

    def to_json(self) -> dict[str, Any]:
        """Plain values; the clock begins where it is read."""
        return {name: value for name, value in asdict(self).items() if name != "began"}


MAX_REASON = 200
"""Characters of a reason, at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One thing that was measured, or why it was not."""

    name: str
    status: str = "ok"
    """`ok`, `error`, `oom`, `time`, `absent` (something that it needs is not here) or `skipped`."""
    reason: str = ""
    """Why there are no figures, in Portuguese."""
    figures: dict[str, Any] = field(default_factory=dict)
    """Empty unless the status is ok, or what is known without measuring."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """A promise with its tolerance: it passes where low <= measured <= high."""

    name: str
    label: str
    """What is promised, in Portuguese."""
    measured: float | None
    """None where it was not measured: then it neither passes nor fails."""
    low: float | None = None
    high: float | None = None

    @property
    def passed(self) -> bool | None:
        """None where nothing was measured; a figure that is no number fails."""
        if self.measured is None:
            return None
        if not math.isfinite(self.measured):
            return False
        above = self.low is None or self.measured >= self.low
        return above and (self.high is None or self.measured <= self.high)

    def to_json(self) -> dict[str, Any]:
        """Plain values; a figure that is no number becomes null, and `passed` is false."""
        known = self.measured if self.measured is not None and math.isfinite(self.measured) else None
        return {**asdict(self), "measured": known, "passed": self.passed}


@dataclass(kw_only=True, slots=True)
class Answer:
    """What a section has found so far; in its process every change is written at once."""

    path: Path | None = None
    lines: list[Line] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Sentences for the reader."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Figures that other sections use."""
    status: str = "ok"
    """Of the section as a whole: what ended it, as in `Line.status`."""
    reason: str = ""

    def line(self, name: str, **figures: Any) -> None:
        """A line with figures; one that is no number is written as null."""
        self.add(Line(name=name, figures={key: _plain(value) for key, value in figures.items()}))

    def missing(self, name: str, status: str, reason: str, **figures: Any) -> None:
        """A line without a measurement, and why."""
        self.add(Line(name=name, status=status, reason=reason[:MAX_REASON], figures=figures))

    def add(self, line: Line) -> None:
        """A line."""
        self.lines.append(line)
        self.save()

    def check(
        self,
        name: str,
        label: str,
        measured: float | None,
        *,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        """A promise, and what was measured."""
        self.checks.append(Check(name=name, label=label, measured=measured, low=low, high=high))
        self.save()

    def note(self, text: str) -> None:
        """A sentence for the reader, once."""
        if text not in self.notes:
            self.notes.append(text)
            self.save()

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """What fails inside becomes the line `name` with the reason, and the section goes on."""
        try:
            yield
        except Exception as error:
            status, reason = explain(error)
            self.missing(name, status, reason)

    def save(self) -> None:
        """Write it, if this is the section's process."""
        if self.path is not None:
            write_json(self.path, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "lines": [asdict(line) for line in self.lines],
            "checks": [check.to_json() for check in self.checks],
            "notes": self.notes,
            "facts": self.facts,
            "ended": {"status": self.status, "reason": self.reason},
        }

    @classmethod
    def from_json(cls, body: dict[str, Any] | None) -> Answer:
        """The inverse; of None, an empty one."""
        if body is None:
            return cls()
        answer = cls(notes=list(body["notes"]), facts=dict(body["facts"]), **body["ended"])
        answer.lines = [Line(**line) for line in body["lines"]]
        for check in body["checks"]:
            plain = {key: value for key, value in check.items() if key != "passed"}
            if check["passed"] is False and check["measured"] is None:
                plain["measured"] = math.nan
            answer.checks.append(Check(**plain))
        return answer


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def explain(error: BaseException) -> tuple[str, str]:
    """(status, reason in Portuguese) of what a measurement raised."""
    first = (str(error).splitlines() or [""])[0]
    if isinstance(error, SlmError):
        absent = error.code in ("E_DEPENDENCY", "E_PROVIDER")
        status = "oom" if error.exit_code == Exit.RESOURCE else "absent" if absent else "error"
        return status, f"{error.code}: {error.message}"
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or first).partition(".")[0]
        extra = EXTRA_OF.get(package)
        return "absent", f"falta o pacote {package}" + (
            f' (pip install "ptbr-slm[{extra}]")' if extra else ""
        )
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "out of memory" in first:
        return "oom", f"a memória acabou: {first}" if first else "a memória acabou"
    return "error", f"{type(error).__name__}: {first}"


@dataclass(kw_only=True, slots=True)
class SectionResult:
    """A section, and how it ended."""

    name: str
    status: str
    """`ok`, `failed` (a check did), `error`, `oom`, `time`, `absent` (nothing could be measured here) or
    `skipped` (not request for, or no time left)."""
    reason: str = ""
    """In Portuguese, where the status is not ok."""
    seconds: float = 0.0
    limit_s: float = 0.0
    answer: Answer = field(default_factory=Answer)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "status": self.status,
            "reason": self.reason,
            "seconds": round(self.seconds, 2),
            "limit_s": round(self.limit_s, 1),
            **self.answer.to_json(),
        }
