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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ptbr_slm.cli.progress import Progress
from ptbr_slm.cli.streams import OutputLost, stdout_failure
from ptbr_slm.cli.terminal import columns, fitted, highlighted
from ptbr_slm.errors import Exit


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
            self._stdout(fitted(report.text.rstrip("\n"), sys.stdout) + "\n" if report.text else "")

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
            self.error(text)

    def error(self, text: str) -> None:
        """Print an error on stderr, whatever the mode."""
        sys.stderr.write(highlighted(fitted(text, sys.stderr), sys.stderr) + "\n")
        sys.stderr.flush()

    @contextmanager
    def progress(
        self, description: str, total: float | None = None, *, eta: bool = True
    ) -> Iterator[Progress]:
        """A bar on a terminal, a line each 30 s elsewhere, nothing with `--quiet`.

        eta: whether the bar shows the time left; off where the status has a better estimate.
        """
        progress = Progress(description, total, self.note)
        if self._draws():
            from ptbr_slm.cli.bar import Bar

            progress = Bar(description, total, eta=eta)
        with progress:
            yield progress

    def _draws(self) -> bool:
        """Whether a line can be drawn again: on a terminal that can go back to its beginning."""
        able = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        return self.mode is Mode.HUMAN and able and not in_notebook(os.environ)

    def _stdout(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


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


def fitting_table(rows: Sequence[Sequence[str]], *, header: Sequence[str], spare: Sequence[str]) -> str:
    """`table` in the terminal's width: columns of `spare` (headings) go until it fits, and are named."""
    gone: list[str] = []
    shown = table(rows, header=header)
    while len(gone) < len(spare) and max(map(len, shown.splitlines())) > columns():
        gone.append(spare[len(gone)])
        kept = [index for index, name in enumerate(header) if name not in gone]
        shown = table([[row[i] for i in kept] for row in rows], header=[header[i] for i in kept])
    if gone:
        shown += f"\n(num terminal mais largo: {', '.join(gone)})"
    return shown


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
