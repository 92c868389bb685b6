"""Runs a measurement in a process of its own: JSON in, JSON out; all that it started is ended with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """How a process ended that was to write an answer."""

    answer: Any
    """What it wrote last, also where it was ended; None where it wrote nothing."""
    code: int | None
    """Its exit code; None where it took too long and was ended."""
    errors: str
    """What it wrote to stderr."""


def run_module(
    module: str, request: Mapping[str, Any], limit_s: float, environment: Mapping[str, str] | None = None
) -> ProcessResult:
    """Run `python -m MODULE REQUEST.json ANSWER.json`, at most `limit_s` seconds.

    A module that may be ended writes its answer as it goes, each time whole (`storage.atomic.write_text`).
    environment: variables set on top of ours.
    """
    with tempfile.TemporaryDirectory(prefix="ptbr-slm-bench-") as folder:
        request_file, answer = Path(folder) / "request.json", Path(folder) / "answer.json"
        request_file.write_text(json.dumps(request), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(request_file), str(answer)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        try:
            _, errors = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            _end(process)
            return ProcessResult(_read(answer), None, "")
        except BaseException:
            _end(process)
            raise
        return ProcessResult(_read(answer), process.returncode, errors)


def _read(answer: Path) -> Any:
    """What is written there; None for nothing, or for what was cut off in the middle."""
    try:
        return json.loads(answer.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _end(process: subprocess.Popen[str]) -> None:
    """Kill the process and all that it started.

    Its process group is not enough: the ranks of a case leave it, and a measurement that asks another process
    starts a new session.
    """
    started = descendants(process.pid)
    process.kill()
    if sys.platform != "win32":  # there `descendants` finds none
        for pid in started:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    process.communicate()


def descendants(pid: int) -> list[int]:
    """Processes that this one started, and those that they did; none where there is no /proc (not Linux)."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            # The name, in parentheses, may hold anything: the state and the parent follow the last one.
            parent = int(status.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(status.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        started = children.get(waiting.pop(), [])
        found += started
        waiting += started
    return found


def last_line(errors: str) -> str:
    """The last line that a process wrote: of a traceback, the exception."""
    last = next((line for line in reversed(errors.splitlines()) if line.strip()), "sem explicação")
    return last.strip()[:160]
