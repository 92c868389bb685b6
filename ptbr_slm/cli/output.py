"""The one object that prints. Data goes to stdout, everything else to stderr; no `print` elsewhere.

A stream that breaks does not end a command (`ptbr_slm.cli.streams`): a training goes on without its log.

Modes: for people (default), `--json` (one document, or JSON lines), `--quiet` (only what was asked for).
"""

from __future__ import annotations

import codecs
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ptbr_slm.cli.streams import OutputLost, stdout_failure
from ptbr_slm.errors import Exit

LINE_EVERY_S = 30.0
"""Seconds between progress lines where stderr is not a terminal (Kaggle, CI)."""


class Mode(Enum):
    """How a command prints."""

    HUMAN = "human"
    JSON = "json"
    QUIET = "quiet"


@dataclass(frozen=True, slots=True)
class Report:
    """What a command has to say."""

    data: Mapping[str, Any]
    """The `--json` document: English keys, no NaN."""
    text: str = ""
    """The same for a person, in Portuguese; tables already laid out (see `table`)."""
    brief: str = ""
    """The one thing `--quiet` still prints, such as a path."""
    exit_code: int = Exit.OK


class Output:
    """Prints reports, events, notes and progress in the chosen mode."""

    def __init__(self, mode: Mode = Mode.HUMAN, *, debug: bool = False) -> None:
        self.mode = mode
        self.debug = debug

    def report(self, report: Report) -> None:
        """Print a command's result on stdout."""
        if self.mode is Mode.JSON:
            self._stdout(_json(report.data))
        elif self.mode is Mode.QUIET:
            self._stdout(report.brief + "\n" if report.brief else "")
        else:
            self._stdout(report.text.rstrip("\n") + "\n" if report.text else "")

    def event(self, data: Mapping[str, Any]) -> None:
        """Print one JSON line on stdout, in `--json` mode only."""
        if self.mode is Mode.JSON:
            self._stdout(_json(_known(data)))

    def stream(self, text: str) -> None:
        """Print a piece of generated text on stdout at once, except in `--json` mode.

        Raises OutputLost where it cannot be delivered.
        """
        if self.mode is not Mode.JSON:
            self._stdout(text)
            if stdout_failure() is not None:
                raise OutputLost

    def note(self, text: str) -> None:
        """Print a note for a person on stderr."""
        if self.mode is not Mode.QUIET:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def error(self, text: str) -> None:
        """Print an error on stderr, whatever the mode."""
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    @contextmanager
    def progress(
        self, description: str, total: float | None = None, *, eta: bool = True
    ) -> Iterator[Progress]:
        """A bar on a terminal, a line each 30 s elsewhere, nothing with `--quiet`.

        eta: whether the bar shows the time left; off where the status has a better estimate.
        """
        progress = _bar(description, total, eta) if self._terminal() else Progress(description, total, self)
        with progress:
            yield progress

    def _terminal(self) -> bool:
        return self.mode is Mode.HUMAN and sys.stderr.isatty() and not in_notebook(os.environ)

    def _stdout(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


@dataclass
class Progress:
    """Progress as plain lines; the base of the bar."""

    description: str
    total: float | None
    output: Output
    _last: float = field(default_factory=time.monotonic)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def update(self, done: float, status: str = "") -> None:
        """`done` of `total` is finished; `status` is a short text such as the loss."""
        now = time.monotonic()
        if now - self._last >= LINE_EVERY_S:
            self._last = now
            share = f" {100 * done / self.total:.0f} %" if self.total else f" {done:.0f}"
            self.output.note(f"{self.description}{share}  {status}".rstrip())


def _json(data: Mapping[str, Any]) -> str:
    """One line of JSON: in UTF-8, or with escapes where stdout has another encoding (ASCII, cp1252) or a name
    of a file is no Unicode. `json.loads` and `os.fsencode` give the bytes of such a name back.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False) + "\n"
    encoding = sys.stdout.encoding or "utf-8"
    if codecs.lookup(encoding).name == "utf-8":
        with suppress(UnicodeEncodeError):
            text.encode("utf-8")
            return text
    return json.dumps(data, ensure_ascii=True, allow_nan=False) + "\n"


def _known(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same with null for NaN and infinity, which are no JSON."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in data.items()
    }


def in_notebook(environment: Mapping[str, str]) -> bool:
    """Whether a Jupyter kernel runs us (`!ptbr-slm ...`): a terminal by its looks, but each redraw of a bar
    becomes an output of the cell, ten a second for hours.
    """
    return "JPY_PARENT_PID" in environment or "KAGGLE_KERNEL_RUN_TYPE" in environment


def _bar(description: str, total: float | None, eta: bool) -> Progress:
    from rich import progress as rich_progress
    from rich.console import Console

    class Bar(Progress):
        """The same on a terminal, drawn by rich."""

        def __enter__(self) -> Progress:
            self._rich = rich_progress.Progress(
                rich_progress.TextColumn("{task.description}"),
                rich_progress.BarColumn(bar_width=24),
                rich_progress.TaskProgressColumn(),
                *([rich_progress.TimeRemainingColumn(compact=True)] if eta else []),
                rich_progress.TextColumn("{task.fields[status]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._rich.add_task(description, total=total, status="")
            self._rich.start()
            return self

        def __exit__(self, *exception: object) -> None:
            self._rich.stop()

        def update(self, done: float, status: str = "") -> None:
            self._rich.update(self._task, completed=done, status=status)

    return Bar(description, total, Output())


def table(rows: Sequence[Sequence[str]], *, header: Sequence[str] = ()) -> str:
    """Columns aligned with spaces: first to the left, the others to the right. Plain text, pipes well."""
    lines = [list(header), *map(list, rows)] if header else [list(row) for row in rows]
    if not lines:
        return ""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]

    def lay(line: Sequence[str]) -> str:
        first, rest = (
            line[0].ljust(widths[0]),
            [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)],
        )
        return "  ".join([first, *rest]).rstrip()

    laid = [lay(line) for line in lines]
    if header:
        laid.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(laid)
