"""metrics.jsonl: a record a line, flushed, that reads as one undisturbed run however often it was killed."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from ptbr_slm.errors import os_errors
from ptbr_slm.storage.atomic import write_text
from ptbr_slm.train.events import Listener, StepEvent

E = TypeVar("E", bound=StepEvent)


class MetricsLog:
    """Appends the events of steps; opened at a step, drops what a killed session wrote beyond it.

    writes: False on all ranks but the main one; their records stay in memory.
    """

    def __init__(self, path: Path, step: int, *, writes: bool = True) -> None:
        self.path, self._writes = path if writes else Path(os.devnull), writes
        self._open(step)

    def _open(self, step: int) -> None:
        kept = [line for line in _lines(self.path) if line["step"] <= step]
        self._counts = Counter((line["event"], line["step"]) for line in kept)
        self._last = {line["event"]: line for line in kept}
        if self._writes and self.path.exists():
            write_text(self.path, "".join(_dump(line) for line in kept))
        with os_errors(self.path):
            self._file = self.path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n")

    def rewind(self, step: int) -> None:
        """Drop the records beyond `step`: the run went back to it, and will record those steps again."""
        self._file.close()
        self._open(step)

    def write(self, event: StepEvent) -> None:
        """Append one record and flush it."""
        record = event.record()
        self._counts[record["event"], record["step"]] += 1
        self._last[record["event"]] = record
        with os_errors(self.path):
            self._file.write(_dump(record))
            self._file.flush()

    def tell(self, listener: Listener, event: StepEvent) -> None:
        """`write` it, and tell whoever watches."""
        self.write(event)
        listener.event(event)

    def has(self, kind: type[StepEvent], step: int) -> bool:
        """Whether such an event was recorded at this step."""
        return (kind.EVENT, step) in self._counts

    def count(self, kind: type[StepEvent]) -> int:
        """Records of this kind."""
        return sum(number for (name, _), number in self._counts.items() if name == kind.EVENT)

    def last(self, kind: type[E]) -> E | None:
        """The newest event of this kind; None where there is none that this version can read."""
        record = self._last.get(kind.EVENT)
        try:
            return None if record is None else kind.from_record(record)
        except ValueError:
            return None

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All records of a metrics.jsonl; a half-written last line is left out."""
    return _lines(path)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with os_errors(path):
        text = path.read_text(encoding="utf-8", errors="replace")
    records = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the line that a kill cut in half
        if isinstance(record, dict) and isinstance(record.get("step"), int) and "event" in record:
            records.append(record)
    return records


def _dump(record: Mapping[str, Any]) -> str:
    # NaN and infinity are no JSON: null. A gradient that overflowed must not end a run at its own record.
    known = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in record.items()
    }
    return json.dumps(known, ensure_ascii=False, allow_nan=False) + "\n"
