"""A temporary folder that carries a mark of ours, locked while its writer lives; and how it is published.

    .tmp-NAME-0123456789ab/
      ptbr-slm.lock   the mark: what the folder is for; the kernel frees its lock when the writer dies
      new...          what is being written
      old             what it is about to replace

Only such a folder is ever cleaned up after a killed writer, and only while its lock is free. A process id
would not do: it says nothing in another PID namespace, and a name alone proves nothing about who made it.

A finished folder is published from beside its target or from inside it. Beside: the old folder moves away,
the new one takes its name. Inside, where the target itself cannot be moved (a mount point, the current
folder, a folder whose parent may not be written to): file by file after a journal, the record of the folder
last. Killed in between, the next writer finishes or undoes it. Files of the old folder that neither the new
one nor the old one's record names are the user's, and stay.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.lock import Lock, same_file, try_lock
from ptbr_slm.storage.record import RECORDS, files_below, foreign_files, recorded_files
from ptbr_slm.version import __version__

PREFIX = ".tmp-"
MARK = "ptbr-slm.lock"
_JOURNAL = "publish.json"
_KIND = "temporary"
_ATTEMPTS = 100
_NAME_CHARACTERS = 50
"""Of the output's name, in the folder's: a file's name has at most 255 bytes."""
_NAME = re.compile(r"\.tmp-.+-[0-9a-f]{12}", re.DOTALL)


@dataclass(slots=True)
class Temporary:
    """A temporary folder whose lock this process holds."""

    path: Path
    name: str
    """Of the output that it is for."""
    inside: bool
    """Whether it lies in the output folder itself, and not beside it."""
    handle: int

    @property
    def new(self) -> Path:
        """What is being written."""
        return self.path / "new"

    @property
    def old(self) -> Path:
        """What was moved away for it, and goes back where the new one never came."""
        return self.path / "old"

    @property
    def target(self) -> Path:
        """Where the output goes."""
        return self.path.parent if self.inside else self.path.parent / self.name

    def delete(self) -> None:
        """Remove the folder, the mark last: a kill in between leaves a folder that is still known as ours."""
        with suppress(OSError):
            for entry in list(os.scandir(self.path)):
                if entry.name == MARK:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    Path(entry.path).unlink(missing_ok=True)
        self.release()
        with suppress(OSError):
            if {entry.name for entry in os.scandir(self.path)} <= {MARK}:
                (self.path / MARK).unlink(missing_ok=True)
                self.path.rmdir()

    def release(self) -> None:
        """Give the lock back."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


def create(parent: Path, name: str, *, inside: bool = False) -> Temporary:
    """A new temporary folder in `parent` for the output `name`. Raises OSError.

    Where the file system has no locks the mark stays empty, and nobody cleans up after a kill.
    """
    for attempt in range(_ATTEMPTS):
        path = parent / f"{PREFIX}{name[:_NAME_CHARACTERS]}-{secrets.token_hex(6)}"
        try:
            path.mkdir()
            handle = os.open(path / MARK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except (FileExistsError, FileNotFoundError):
            if attempt == _ATTEMPTS - 1:  # /proc says that it does not exist, too
                raise
            continue  # chance, or another process took the still empty folder for a leftover
        except OSError:
            with suppress(OSError):
                path.rmdir()
            raise
        lock = try_lock(handle)
        if lock is Lock.BUSY or (lock is Lock.HELD and not same_file(handle, path / MARK)):
            os.close(handle)  # likewise
            continue
        if lock is Lock.HELD:
            body = {
                "kind": _KIND,
                "ptbr_slm": __version__,
                "folder": path.name,
                "for": name,
                "inside": inside,
            }
            os.write(handle, json.dumps(body).encode("ascii"))
        return Temporary(path, name, inside, handle)
    raise BlockingIOError(errno.EAGAIN, "a trava da pasta temporária está ocupada", str(parent))


def abandoned(folder: Path, name: str | None = None) -> Iterator[Temporary]:
    """The temporary folders in `folder` whose writer died, locked: for the output `name`, or for any.

    Folders that a writer was killed in before it could mark them are empty, and removed.
    """
    try:
        entries = [entry for entry in os.scandir(folder) if _NAME.fullmatch(entry.name)]
    except OSError:
        return
    begin = None if name is None else f"{PREFIX}{name[:_NAME_CHARACTERS]}-"
    for entry in entries:
        if begin is not None and entry.name[:-12] != begin:
            continue
        with suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                found = _claim(Path(entry.path), name)
                if found is not None:
                    yield found


def publish_folder(work: Temporary) -> None:
    """Move `work.new`, which is whole, to its target. Raises OSError or E_EXISTS; `recover` mends it then."""
    if work.inside:
        _write_journal(work)
        _carry_out(work)
        return
    if os.path.lexists(work.target):
        work.target.rename(work.old)
    work.new.rename(work.target)


def recover(work: Temporary) -> None:
    """Finish or undo what a writer began, and remove its temporary folder; OSError leaves it there."""
    try:
        if work.inside:
            _carry_out(work)
        elif os.path.lexists(work.old):
            if os.path.lexists(work.target):
                _keep_foreign(work.old, work.target)
                work.old.rename(work.path / "gone")  # half deleted, it must not come back
            else:
                work.old.rename(work.target)
    except OSError:
        work.release()
        raise
    work.delete()


def _claim(path: Path, name: str | None) -> Temporary | None:
    """Its lock, where the folder carries our mark and the lock is free. Raises OSError."""
    mark = path / MARK
    if not mark.exists():
        path.rmdir()  # succeeds on an empty folder only
        return None
    if mark.is_symlink() or not mark.is_file():
        return None
    content = mark.read_bytes()
    found = _marked(content, path)
    if content and (found is None or (name is not None and found.name != name)):
        return None
    handle = os.open(mark, os.O_RDWR)
    if try_lock(handle) is not Lock.HELD or not same_file(handle, mark) or mark.read_bytes() != content:
        os.close(handle)
        return None
    if found is None:  # killed before the mark was written
        os.close(handle)
        if [entry.name for entry in os.scandir(path)] == [MARK]:
            mark.unlink()
            path.rmdir()
        return None
    found.handle = handle
    return found


def _marked(content: bytes, path: Path) -> Temporary | None:
    try:
        body = json.loads(content)
        if body["kind"] != _KIND or body["folder"] != path.name or not isinstance(body["ptbr_slm"], str):
            return None
        name, inside = body["for"], body["inside"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(name, str) or Path(name).name != name or not isinstance(inside, bool):
        return None
    return Temporary(path, name, inside, -1)


def _keep_foreign(old: Path, target: Path) -> None:
    """Move the user's own files of the old folder into the new one."""
    if not old.is_dir() or old.is_symlink():
        return
    for name in foreign_files(old):
        goal = target / name
        if not os.path.lexists(goal):
            goal.parent.mkdir(parents=True, exist_ok=True)
            (old / name).rename(goal)


def _write_journal(work: Temporary) -> None:
    """From here on the new files replace the old ones, whatever happens to this process."""
    new = files_below(work.new)
    for name in new:
        goal = work.target / name
        if goal.is_dir() and not goal.is_symlink():
            raise SlmError(
                "E_EXISTS",
                "há uma pasta onde um arquivo seria gravado: não vou apagá-la.",
                where=goal,
                hint="Escolha outra pasta de saída.",
            )
    dropped = sorted(recorded_files(work.target).intersection(files_below(work.target)) - set(new))
    draft = work.path / "journal"
    with draft.open("w", encoding="ascii") as file:
        json.dump({"new": new, "dropped": dropped}, file)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(work.path / _JOURNAL)


def _carry_out(work: Temporary) -> None:
    """What the journal says and is not done yet; nothing without a journal."""
    try:
        journal = json.loads((work.path / _JOURNAL).read_bytes())
    except FileNotFoundError:
        return
    for name in _records_last(journal["new"]):
        if os.path.lexists(work.new / name):
            (work.target / name).parent.mkdir(parents=True, exist_ok=True)
            (work.new / name).replace(work.target / name)
    for name in journal["dropped"]:
        (work.target / name).unlink(missing_ok=True)


def _records_last(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (name in RECORDS, name))
