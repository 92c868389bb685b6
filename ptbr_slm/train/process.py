"""The process of a training: what malloc does with freed memory, the signals that ask it to stop, its age.

No torch here.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""From glibc's malloc.h."""

STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
"""Names of the signals that ask a run to save and stop."""

SESSION_START_VARIABLE = "PTBR_SLM_SESSION_STARTED"
"""Environment variable in which a launcher tells its ranks, restarted ones too, when it was started."""


def keep_freed_memory() -> bool:
    """Make malloc keep what is freed, instead of giving it back to the system; False where it is not glibc.

    By default every block above 128 KiB to 32 MiB is mapped anew and paged in at each step. Without that,
    measured in CPU time a step (docs/decisions/0009-kept-memory.md): mini +18 %, 85m +15 %, 2M parameters
    +5 %. The process then stays at its peak, which grew by 12 % for mini and not at all for 85m.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals of `STOP_SIGNALS` that this system has, without a SIGHUP that this process ignores."""
    known = [signal.Signals[name] for name in STOP_SIGNALS if hasattr(signal, name)]
    return tuple(n for n in known if n.name != "SIGHUP" or signal.getsignal(n) != signal.SIG_IGN)


def clock() -> float:
    """Seconds on a clock that is never set and that goes on while the machine is suspended."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def age_of(process: str) -> float:
    """Seconds since a process (`self`, or a number) began, by the kernel's own clock where there is one.

    Of process 1 in a container: since the container, a notebook's session, was started.
    """
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
        ticks = int(stat.rpartition(")")[2].split()[19])  # field 22, counted behind the name
        return max(0.0, clock() - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        import psutil

        began = psutil.Process().create_time() if process == "self" else psutil.boot_time()
        return max(0.0, time.time() - began)


def mark_session_start() -> None:
    """Tell the processes that this one will start when it was started (`SESSION_START_VARIABLE`)."""
    os.environ.setdefault(SESSION_START_VARIABLE, repr(clock() - age_of("self")))
