"""A measurement in a process of its own: JSON in, JSON out, and nothing left behind whatever happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended that was asked for an answer."""

    answer: Any
    """What it wrote; None where it wrote nothing."""
    code: int | None
    """Its exit code; None where it took too long and was ended."""
    errors: str
    """What it said on stderr."""


def ask(
    module: str, asked: Mapping[str, Any], limit_s: float, environment: Mapping[str, str] | None = None
) -> Ended:
    """Run `python -m MODULE ASKED.json ANSWER.json`, at most `limit_s` seconds.

    environment: variables set on top of ours.
    """
    with tempfile.TemporaryDirectory(prefix="ptbr-slm-bench-") as folder:
        question, answer = Path(folder) / "asked.json", Path(folder) / "answer.json"
        question.write_text(json.dumps(asked), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(question), str(answer)],
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
            return Ended(None, None, "")
        except BaseException:
            _end(process)
            raise
        body = json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else None
        return Ended(body, process.returncode, errors)


def _end(process: subprocess.Popen[str]) -> None:
    """Kill the process and all that it started: the ranks of a case are its children."""
    if hasattr(os, "killpg"):
        import signal

        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.communicate()


def last_words(errors: str) -> str:
    """The last line of what a process said: of a traceback, the exception."""
    last = next((line for line in reversed(errors.splitlines()) if line.strip()), "sem explicação")
    return last.strip()[:160]
