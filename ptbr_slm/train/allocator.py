"""The C library's allocator, set for a process that frees and takes the same large blocks at every step."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""From glibc's malloc.h."""


def keep_freed_memory() -> bool:
    """Make malloc keep what is freed, instead of giving it back to the system; False where it is not glibc.

    By default every block above 128 KiB to 32 MiB is mapped anew and paged in at each step. Without that,
    measured in CPU time a step (docs/decisions/0009-kept-memory.md): mini +18 %, 85m +15 %, 2M parameters
    +5 %. The price: the process stays at its peak, which grew by 12 % for mini and not at all for 85m. Acts
    on the whole process.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
