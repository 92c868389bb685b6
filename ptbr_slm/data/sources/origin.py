"""What a source is asked for, and what each kind of origin does: `bring` fills the output folder."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.atomic import write_bytes, write_json
from ptbr_slm.storage.lock import Lock, same_file, try_lock
from ptbr_slm.storage.manifest import NAME as MANIFEST
from ptbr_slm.storage.manifest import SCHEMA
from ptbr_slm.storage.output import make_folder, remove_made
from ptbr_slm.version import __version__

KIND = "fetched-data"
"""Of the manifest."""

BYTES_PER_TOKEN = 4.4
"""UTF-8 bytes of Portuguese news per token of a 32k byte-level BPE (4.44 to 4.46 for good ones)."""

_WORK = ".fetch"
_STATE = "state.json"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to try. A download counts only the attempts in a row that brought nothing."""

    attempts: int = 8
    attempts_at_first: int = 3
    """The same, until a server has answered for the first time: is there a network at all?"""
    first_wait_s: float = 1.0
    """Doubled at each attempt, with a quarter of jitter."""
    longest_wait_s: float = 60.0
    longest_retry_after_s: float = 900.0
    """A server that asks for a longer wait than this ends the command."""
    connect_timeout_s: float = 15.0
    read_timeout_s: float = 60.0
    """Without a byte."""
    slowest_bytes_per_s: float = 1024.0
    """A connection slower than this over `slow_window_s` is closed and opened again (curl --speed-limit)."""
    slow_window_s: float = 60.0
    sleep: Callable[[float], None] = time.sleep

    def wait_s(self, attempt: int) -> float:
        """Seconds to wait after the failed attempt number `attempt`, counted from 1."""
        longest = min(self.longest_wait_s, self.first_wait_s * 2.0 ** (attempt - 1))
        return longest * random.uniform(0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Status:
    """How far a download is."""

    share: float
    """Of what was asked for, 0 to 1."""
    received_bytes: int
    """Over the network, in this call."""
    text_bytes: int
    """UTF-8 bytes of the texts written so far, earlier calls included."""


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """What the user asked for."""

    tokens: int | None = None
    """Stop at this many tokens, at `BYTES_PER_TOKEN` bytes each. None: all."""
    max_disk: int | None = None
    """Bytes that the output folder may hold, unfinished files included. None: what the disk has."""
    where: str = ""
    """`COLUMN OP VALUE`: only rows that agree are written."""
    preset: str = ""
    """Stages of a cleaning preset that documents go through on the way; empty for none."""
    mirror: str = ""
    """Instead of the source's own host."""
    accept_license: bool = False
    """The terms of a source that is not free for every use were read."""
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    progress: Callable[[Status], None] = lambda status: None
    note: Callable[[str], None] = lambda text: None

    @property
    def text_bytes(self) -> int | None:
        """The token budget in bytes of text."""
        return None if self.tokens is None else round(self.tokens * BYTES_PER_TOKEN)


@dataclass(frozen=True, slots=True)
class Task:
    """One fetch: where to, and what for."""

    name: str
    """Of the source."""
    out: Path
    licence: str
    """The content of LICENCA.md."""
    options: FetchOptions

    @property
    def work(self) -> Path:
        """The folder of unfinished files, hidden from readers of `out`."""
        return self.out / _WORK


class Origin(Protocol):
    """Where the texts of a source come from."""

    def pins(self) -> Mapping[str, str]:
        """What is written into the manifest: a folder made from something else is fetched again."""

    def bring(self, task: Task) -> Path:
        """Fill `task.out`, manifest last, and return the file or folder of the texts.

        Raises E_FETCH, E_DISK_FULL, E_PERMISSION or E_LOCKED. Killed, it goes on at the next call.
        """


def fetch_error(reason: str, where: str | Path, hint: str = "") -> SlmError:
    """E_FETCH: what kept a text away. The query of a URL, which may hold a signature, is cut."""
    return SlmError(
        "E_FETCH",
        f"não consegui baixar os textos: {reason}.",
        where=str(where).partition("?")[0],
        hint=hint
        or "Confira a internet e o proxy (HTTPS_PROXY) e repita o mesmo comando: ele continua de onde parou.",
    )


def is_unfinished(out: Path, name: str) -> bool:
    """Whether a fetch of the source `name` goes on or was stopped in this folder."""
    state = read_state(out / _WORK)
    if state:
        return state.get("name") == name
    with os_errors(out):
        return out.is_dir() and [entry.name for entry in out.iterdir()] == [_WORK]


def read_state(work: Path) -> dict[str, Any]:
    """What an earlier call wrote; empty where there is none."""
    try:
        state = json.loads((work / _STATE).read_bytes())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(work: Path, state: Mapping[str, Any]) -> None:
    """Keep what a later call needs, atomically."""
    write_json(work / _STATE, state)


def finish(task: Task, files: Mapping[str, tuple[int, str]], extra: Mapping[str, Any]) -> None:
    """Write LICENCA.md and the manifest, then remove the unfinished files: killed before, it is done again.

    files: name -> (bytes, hexadecimal sha256) of what was fetched, known from when it was written.
    """
    licence = task.licence.encode()
    write_bytes(task.out / "LICENCA.md", licence)
    named = {**files, "LICENCA.md": (len(licence), hashlib.sha256(licence).hexdigest())}
    listed = {name: {"size": size, "sha256": digest} for name, (size, digest) in sorted(named.items())}
    body = {"schema": SCHEMA, "kind": KIND, "ptbr_slm": __version__, "files": listed, **extra}
    write_json(task.out / MANIFEST, body)
    write_state(task.work, {})


@contextmanager
def locked(task: Task) -> Iterator[None]:
    """Hold `task.out` while the block runs. Raises E_LOCKED where another process fetches into it."""
    made = make_folder(task.work)
    path = task.work / "lock"
    with os_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if try_lock(handle) is Lock.BUSY or not same_file(handle, path):
            raise SlmError(
                "E_LOCKED",
                "outro data fetch está gravando nesta pasta.",
                where=task.out,
                hint="Espere ele terminar, encerre-o, ou use outra pasta em --output.",
            )
        try:
            yield
        finally:
            if not read_state(task.work):  # finished, or failed before anything came
                shutil.rmtree(task.work, ignore_errors=True)
                remove_made([folder for folder in made if folder.exists()])
    finally:
        os.close(handle)
