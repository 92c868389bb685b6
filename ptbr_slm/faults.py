"""Fault injection for tests: kill a run, exhaust its memory or its disk, or spoil a value, at a named point.

    PTBR_SLM_FAULT="kill@checkpoint.after_weights:2"    at the 2nd time that this point is passed
    PTBR_SLM_FAULT="oom@step.backward:5:1"              the 5th time, on rank 1 only
    PTBR_SLM_FAULT="nan@step.loss:3;enospc@checkpoint.after_weights"      two faults

Kinds: `kill` (SIGKILL), `oom` (torch.OutOfMemoryError), `enospc` (disk full), `error` (RuntimeError); every
other word, such as `nan`, makes `maybe_fail` return True, and the caller does what it means. A fault happens
once a process. Where none is set, a point costs one look-up in the environment.
"""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass

VARIABLE = "PTBR_SLM_FAULT"


@dataclass(slots=True)
class _Fault:
    """One fault that has not happened yet."""

    kind: str
    point: str
    left: int
    """Times the point is still to be passed; the fault happens at 0."""
    rank: str
    """The rank that it concerns, empty for all."""


_parsed: tuple[str, list[_Fault]] = ("", [])


def maybe_fail(point: str) -> bool:
    """Raise or kill where a fault is set for this point; True asks the caller to do the damage itself."""
    text = os.environ.get(VARIABLE)
    if not text:
        return False
    due = [fault for fault in _faults(text) if _counts(fault, point)]
    for fault in due:
        _happen(fault)
    return bool(due)


def reset() -> None:
    """Forget how often each point was passed: for tests that set the same fault twice in one process."""
    global _parsed
    _parsed = ("", [])


def _faults(text: str) -> list[_Fault]:
    global _parsed
    if _parsed[0] != text:
        _parsed = (text, [_parse(part) for part in text.split(";")])
    return _parsed[1]


def _parse(text: str) -> _Fault:
    kind, _, rest = text.strip().partition("@")
    point, hit, rank = [*rest.split(":"), "", ""][:3]
    return _Fault(kind, point, int(hit or 1), rank)


def _counts(fault: _Fault, point: str) -> bool:
    if fault.point != point or (fault.rank and fault.rank != os.environ.get("RANK", "0")):
        return False
    fault.left -= 1
    return fault.left == 0


def _happen(fault: _Fault) -> None:
    where = f"fault injected at {fault.point}"
    if fault.kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault.kind == "enospc":
        raise OSError(errno.ENOSPC, f"No space left on device ({where})")
    if fault.kind == "error":
        raise RuntimeError(where)
    if fault.kind == "oom":
        import torch

        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate 2.00 GiB ({where})")
