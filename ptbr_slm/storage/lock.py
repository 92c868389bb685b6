"""Locks that die with their process, and the lock file of a run, which names it."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.output import make_folder

_BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_FAR = 1 << 30
"""Windows locks bytes, against readers too: this one is beyond what a lock file holds."""


class Lock(Enum):
    """What came of asking for a lock."""

    HELD = auto()
    BUSY = auto()
    """Another process, or another handle of this one, has it."""
    UNKNOWN = auto()
    """The file system has no locks."""


def try_lock(handle: int) -> Lock:
    """Lock an open file for as long as it stays open, without waiting. The kernel frees it on `kill -9`."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, _FAR, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return Lock.BUSY if error.errno in _BUSY else Lock.UNKNOWN
    return Lock.HELD


@contextmanager
def run_lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; raises E_LOCKED where another process holds it.

    Raises E_EXISTS where a file of this name is not a lock of ours.

    The kernel releases a flock when its holder dies, so `kill -9` leaves no stale lock. The file stays, with
    the last holder's pid and host for the message.
    """
    handle = _open(path)
    try:
        lock = try_lock(handle)
        while lock is Lock.HELD and not same_file(handle, path):  # its last holder removed it since
            os.close(handle)
            handle = _open(path)
            lock = try_lock(handle)
        if lock is Lock.BUSY:
            raise _locked_error(path)
        if not is_run_lock(path):
            raise SlmError(
                "E_EXISTS",
                f"já existe um {path.name} aqui, que não é de um treino do ptbr-slm: não vou substituí-lo.",
                where=path,
                hint="Escolha outra pasta em --output.",
            )
        with os_errors(path):
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        yield
    finally:
        os.close(handle)


def is_run_lock(path: Path) -> bool:
    """Whether the file is empty or says what `run_lock` writes: nobody else's content is overwritten."""
    with os_errors(path):
        content = path.read_bytes()
    try:
        return not content or {"pid", "host"} <= json.loads(content).keys()
    except (ValueError, AttributeError, RecursionError):
        return False


def same_file(handle: int, path: Path) -> bool:
    """Whether `path` still names the file that is open: a lock on a removed file keeps nobody out."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _open(path: Path) -> int:
    make_folder(path.parent)
    with os_errors(path):
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


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
