"""A progress bar: one line of the terminal, whatever its width."""

from __future__ import annotations

import sys
from datetime import timedelta

from rich.console import Console
from rich.progress import Progress as RichProgress
from rich.progress import ProgressColumn, Task
from rich.text import Text

from ptbr_slm.cli.progress import Progress
from ptbr_slm.cli.terminal import wants_colour

WIDTHS = (24, 16, 8, 0)
"""Cells of the bar, the first that leaves room for the rest."""


class Bar(Progress):
    """Progress drawn by rich, which keeps notes that are printed meanwhile above it."""

    def __init__(self, description: str, total: float | None, *, eta: bool) -> None:
        super().__init__(description, total, lambda line: None)
        console = Console(stderr=True, no_color=not wants_colour(sys.stderr))
        self._rich = RichProgress(_Line(console, eta), console=console, transient=True)
        self._task = self._rich.add_task(description, total=total, status="")

    def __enter__(self) -> Bar:
        self._rich.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._rich.stop()

    def update(self, done: float, status: str = "") -> None:
        """Move the bar."""
        self._rich.update(self._task, completed=done, status=status)


class _Line(ProgressColumn):
    """The whole line as rich's only column."""

    def __init__(self, console: Console, eta: bool) -> None:
        super().__init__()
        self._console, self._eta = console, eta

    def render(self, task: Task) -> Text:
        """The line now."""
        share = None if not task.total else min(1.0, task.completed / task.total)
        seconds = task.time_remaining if share is not None and self._eta else None
        if share is None:
            seconds = task.elapsed
        ascii_only = self._console.options.ascii_only
        room = self._console.width - 1  # the cursor stands in the last column
        before, filled, rest, after = bar_line(
            task.description, share, seconds, str(task.fields["status"]), room, "#." if ascii_only else "━─"
        )
        return Text.assemble(
            before, (filled, "cyan"), (rest, "bright_black"), after, no_wrap=True, overflow="crop"
        )


def bar_line(
    description: str, share: float | None, seconds: float | None, status: str, room: int, cells: str
) -> tuple[str, str, str, str]:
    """(text, filled cells, empty cells, text) of at most `room` characters together.

    share: from 0 to 1, None where the end is not known. seconds: left, or gone by where the end is not known.
    cells: the characters of a filled and of an empty cell. The bar shrinks first, then the time goes, then
    the end of the status.
    """
    time = "" if seconds is None else str(timedelta(seconds=int(seconds))).removeprefix("0:")
    percent = "" if share is None else f"{100 * share:3.0f} %"
    for figures in ((percent, time, status), (percent, status)):
        after = "  ".join(figure for figure in figures if figure)
        for width in WIDTHS if share is not None else (0,):
            used = len(description) + 1 + (width + 1 if width else 0) + len(after)
            if used <= room:
                filled = round(width * (share or 0.0))
                gap = " " if width else ""
                return f"{description} ", cells[0] * filled, cells[1] * (width - filled), f"{gap}{after}"
    whole = f"{description} {percent} {status}".replace("  ", " ")
    return whole if len(whole) <= room else whole[: room - 3] + "...", "", "", ""
