"""A finished folder takes its place, beside which it was written or inside which it was written.

Beside: the old folder moves away, the new one takes its name. Inside, where the place itself cannot be moved
(a mount point, the current folder, a folder whose parent may not be written to): file by file after a
journal, the record of the folder last. Killed in between, the next writer finishes or undoes it.

Files of the old folder that neither the new one nor the old one's record names are the user's, and stay.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.record import RECORDS, files_below, foreign_files, recorded_files
from ptbr_slm.storage.temporary import Temporary

_JOURNAL = "publish.json"


def publish_folder(work: Temporary) -> None:
    """Give `work.new`, which is whole, its place. Raises OSError or E_EXISTS; `recover` mends it then."""
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
    """From here on the new files take their places, whatever happens to this process."""
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
