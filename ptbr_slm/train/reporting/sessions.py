"""sessions.jsonl: when each session of a run began and ended, why, with which command and versions.

Beside metrics.jsonl, which reads as one undisturbed run: here every interruption stays.
"""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.events import Event
from ptbr_slm.train.events import Copied, Listener, MemoryRanOut, SessionEnded, SessionStarted, Warned
from ptbr_slm.train.run_folder import SESSIONS
from ptbr_slm.version import __version__

NOTED = (MemoryRanOut, Warned, Copied)
"""Events that metrics.jsonl does not keep."""
_PACKAGES = ("torch", "numpy", "tokenizers", "safetensors")


class SessionLog:
    """A session that begins now at `step`; its end is written when the block is left."""

    def __init__(
        self, run: Path, step: int, *, device: str, ranks: int, precision: str, batch_size: int
    ) -> None:
        self._path, self._ended = run / SESSIONS, False
        self._write(
            SessionStarted(
                time=_now(),
                step=step,
                command=command_line(),
                versions=versions(),
                commit=commit(),
                device=device,
                ranks=ranks,
                precision=precision,
                batch_size=batch_size,
            ).record()
        )

    def end(self, step: int, reason: str) -> None:
        """The session is over: a `TrainResult.reason`, or the code of an error."""
        self._ended = True
        self._write(SessionEnded(time=_now(), step=step, reason=reason).record())

    def note(self, event: Event) -> None:
        """Keep what metrics.jsonl does not: that the memory ran out, or a warning."""
        if isinstance(event, NOTED):
            with suppress(SlmError):  # a full disk is reported by what needs it
                self._write({"time": _now(), **event.record()})

    def __enter__(self) -> SessionLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ended or error is None:
            return
        reason = error.code if isinstance(error, SlmError) else type(error).__name__
        with suppress(SlmError):  # nothing here may hide `error`
            self._write(SessionEnded(time=_now(), step=None, reason=reason).record())

    def _write(self, record: Mapping[str, Any]) -> None:
        with os_errors(self._path), self._path.open("ab") as file:
            file.write((json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


class NotingListener:
    """A listener that also keeps in sessions.jsonl what metrics.jsonl does not hold."""

    def __init__(self, listener: Listener, log: SessionLog) -> None:
        self._listener, self._log = listener, log

    def event(self, event: Event) -> None:
        """Note, and pass on."""
        self._log.note(event)
        self._listener.event(event)

    def progress(self, done: float, status: str) -> None:
        """Pass on."""
        self._listener.progress(done, status)


def read_sessions(run: Path) -> list[dict[str, Any]]:
    """The sessions in order: what `start` says, plus `end`, `end_step` and `reason`.

    These are None where no end was written: a killed process, or the session that is going on.
    """
    sessions: list[dict[str, Any]] = []
    for record in _records(run / SESSIONS):
        if record.get("event") == SessionStarted.EVENT:
            sessions.append(
                {**record, "start": record.get("time"), "end": None, "end_step": None, "reason": None}
            )
        elif record.get("event") == SessionEnded.EVENT and sessions and sessions[-1]["end"] is None:
            sessions[-1] |= {
                "end": record.get("time"),
                "end_step": record.get("step"),
                "reason": record.get("reason"),
            }
    return [
        {key: value for key, value in session.items() if key not in ("event", "time")} for session in sessions
    ]


def read_notes(run: Path) -> list[dict[str, Any]]:
    """What happened besides steps: out of memory, warnings."""
    noted = [kind.EVENT for kind in NOTED]
    return [record for record in _records(run / SESSIONS) if record.get("event") in noted]


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []  # a run of an older version, or a copy without it
    found = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # cut in half by a kill
        if isinstance(record, dict):
            found.append(record)
    return found


def command_line() -> str:
    """What was typed, quoted for a shell; from Python, the script."""
    name, *rest = sys.argv or [""]
    ours = Path(name).name in ("ptbr-slm", "ptbr-slm.exe", "__main__.py")
    return shlex.join(["ptbr-slm" if ours else name, *rest])


def versions() -> dict[str, str]:
    """Ours, Python's, and those of the packages that a result depends on."""
    found = {"ptbr-slm": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The git commit of our own sources, `+` where they were changed; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
