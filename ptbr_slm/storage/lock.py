"""One writer per run: a lock file that names the process, and dies with it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptbr_slm.errors import SlmError, os_errors

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def run_lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; raises E_LOCKED where another process holds it.

    The kernel releases a flock when its holder dies, so `kill -9` leaves no stale lock. The file stays, with
    the last holder's pid and host for the message.
    """
    handle = _open(path)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                while not _same_file(handle, path):  # its last holder removed it before we had the lock
                    os.close(handle)
                    handle = _open(path)
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise _locked_error(path) from error
        with os_errors(path):
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        yield
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def _same_file(handle: int, path: Path) -> bool:
    """Whether `path` still names the file that is open: a lock on a removed file keeps nobody out."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _locked_error(path: Path) -> SlmError:
    try:
        holder = json.loads(path.read_text())
        who = f"processo {holder['pid']} em {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "outro processo"
    return SlmError(
        "E_LOCKED",
        f"este treino já está em andamento ({who}).",
        where=path.parent,
        hint="Espere ele terminar, encerre-o, ou use outra pasta em --output.",
    )
