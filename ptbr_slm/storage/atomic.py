"""Write to a temporary name, fsync, rename: a reader sees the old file or the new one, never a half.

Killing `torch.save` left an unreadable newest checkpoint in 18 of 20 tries; this pattern in 0 of 20
(benchmarks/kill_loop.py).
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ptbr_slm.errors import SlmError, named_instead, os_errors
from ptbr_slm.storage import temporary
from ptbr_slm.storage.output import (
    holds_working_folder,
    is_mount,
    make_folder,
    real_output,
    remove_made,
    require_file,
    require_folder,
)
from ptbr_slm.storage.record import kind_of
from ptbr_slm.storage.temporary import Temporary, publish_folder, recover

_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path with the suffix of `path`; on success fsync it and rename it over `path`.

    For libraries that write files themselves. A link is followed. The result is readable by others (0644
    before the umask): safetensors creates its files as 0600. Raises E_EXISTS where a folder, a device, a pipe
    or a mount point is, and what `make_folder` raises.
    """
    with os_errors(path):
        target = real_output(path)
        require_file(target)
        made = make_folder(target.parent)
        try:
            remove_leftovers(target.parent, target.name)
            work = temporary.create(target.parent, target.name)
            try:
                file = work.new.with_suffix(target.suffix)
                with named_instead(file, path):
                    yield file
                _publish_file(file)
                file.replace(target)
                fsync_folder(target.parent)
            finally:
                work.delete()
        except BaseException:
            remove_made(made)
            raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically. Raises E_DISK_FULL, E_PERMISSION or E_IO."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with `\\n` line ends, atomically.

    A lone surrogate, from the name of a file that is not UTF-8 (PEP 383), becomes the escape `\\udcff`: what
    JSON writes for it, and reads back.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically. NaN and infinity are refused (not JSON)."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder; on success fsync its files and move it to `path`, links followed.

    An existing folder is replaced, but for the files in it that no record of ours names. On any exception
    nothing of the new folder is left behind and the old one is untouched; what an earlier, killed writer
    left goes, too. Raises E_EXISTS where something that is no folder is, and what `make_folder` raises.
    """
    with os_errors(path):
        target = real_output(path)
        require_folder(target)
        made = make_folder(target.parent)
        try:
            for parent in (target.parent, target):
                remove_leftovers(parent, target.name)
            work = _begin(target)
            try:
                work.new.mkdir()
                with named_instead(work.new, path):
                    yield work.new
                for folder, _, names in os.walk(work.new):
                    for name in names:
                        _publish_file(Path(folder) / name)
                    fsync_folder(Path(folder))
                publish_folder(work)
                fsync_folder(target.parent)
            finally:
                recover(work)
        except BaseException:
            remove_made(made)
            raise


@contextmanager
def scratch_folder(beside: Path, name: str) -> Iterator[Path]:
    """A folder in `beside`, on the disk where large files are wanted anyway, that goes when the block ends.

    Where nothing may be written there, in the system's temporary folder. A killed process's is removed by the
    next call with the same `beside` and `name`.
    """
    remove_leftovers(beside, name)
    try:
        work = temporary.create(beside, name)
    except OSError:
        with tempfile.TemporaryDirectory(prefix="ptbr-slm-") as system, named_instead(Path(system), beside):
            yield Path(system)
        return
    try:
        work.new.mkdir()
        with named_instead(work.new, beside):
            yield work.new
    finally:
        work.delete()


def may_replace(path: Path, kind: str) -> bool:
    """Whether a folder of ours may be written here: nothing is there, an empty folder, or one of this kind.

    Only the record of the one that is there is read (`storage.record`), so a damaged one may be replaced.
    """
    with os_errors(path):
        target = real_output(path)
        if not target.exists():
            return True
        if not target.is_dir():
            return False
        remove_leftovers(target, target.name)
        return not any(target.iterdir()) or kind_of(target) == kind


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Clean up after the killed writers of the output `name` in `folder`, or of any.

    Only in temporary folders that carry our mark and whose lock is free (`storage.temporary`). What such a
    writer had moved away for a new folder that never came goes back to where it was.
    """
    for work in temporary.abandoned(folder, name):
        with suppress(OSError, SlmError):
            recover(work)


def discard(path: Path) -> None:
    """Remove a folder that the caller has proved to be ours, in one instant. Raises E_PERMISSION or E_IO.

    It is renamed into a temporary folder first: a kill in between leaves no half of it under its name.
    """
    with os_errors(path):
        work = temporary.create(path.parent, path.name)
        try:
            path.rename(work.path / "gone")
        finally:
            work.delete()


def fsync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut. A no-op where the folder cannot be opened."""
    if os.name == "nt":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # one may write into a folder that one may not list
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _publish_file(path: Path) -> None:
    """Chmod to 0644 minus the umask, then fsync."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o644 & ~umask)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _begin(target: Path) -> Temporary:
    """The temporary folder for a new `target`: beside it, or inside it where it cannot be moved."""
    exists = target.is_dir()
    if exists and (is_mount(target) or holds_working_folder(target)):
        return temporary.create(target, target.name, inside=True)
    try:
        return temporary.create(target.parent, target.name)
    except OSError as error:
        if exists and error.errno in _NOT_WRITABLE:
            return temporary.create(target, target.name, inside=True)
        raise
