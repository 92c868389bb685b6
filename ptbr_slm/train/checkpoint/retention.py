"""How many checkpoints stay: as many as the disk allows, and never fewer than the one to go on from.

Only a checkpoint whose manifest names every file in it is removed (`train.run_folder`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.atomic import discard
from ptbr_slm.storage.manifest import read_manifest
from ptbr_slm.storage.output import make_folder
from ptbr_slm.system import kaggle_root
from ptbr_slm.train.config import AUTO
from ptbr_slm.train.run_folder import is_our_checkpoint

BYTES_PER_PARAMETER = 12
"""Of a checkpoint: fp32 weight and AdamW's two fp32 moments."""
MAX_CHECKPOINTS = 20
"""The most checkpoints that `checkpoint.keep = auto` keeps."""
KAGGLE_OUTPUT_BYTES = 20 * 10**9
"""What Kaggle keeps of /kaggle/working; a larger output is lost as a whole."""
_SPARE_SHARE, _MOST_SPARE = 0.05, 10 * 10**9
"""Of the disk, left to everything else: data, exports, logs."""


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """The space that a folder is allowed, in bytes."""

    total: int
    free: int

    @property
    def spare(self) -> int:
        """Bytes that old checkpoints leave free."""
        return min(_MOST_SPARE, int(_SPARE_SHARE * self.total))


def disk_space(folder: Path) -> DiskSpace:
    """Of the disk that `folder` is on; inside /kaggle/working, also of what Kaggle keeps of it."""
    usage = shutil.disk_usage(folder)
    working = kaggle_root() / "working"
    if not folder.resolve().is_relative_to(working.resolve()):
        return DiskSpace(usage.total, usage.free)
    left = KAGGLE_OUTPUT_BYTES - _size(working)
    return DiskSpace(min(usage.total, KAGGLE_OUTPUT_BYTES), max(0, min(usage.free, left)))


def ensure_space(folder: Path, existing: list[Path], needed: int, keep: int) -> None:
    """Before a checkpoint of `needed` bytes is written. existing: those in `folder`, newest first.

    With `auto` the oldest go until it fits, except for the newest complete one. Raises E_DISK_FULL.
    """
    make_folder(folder)
    free = disk_space(folder).free
    if keep == AUTO:
        newest_complete = next((path for path in existing if _complete(path)), None)
        for old in reversed(existing):
            if free >= needed:
                break
            if old != newest_complete and is_our_checkpoint(old):
                discard(old)
                free = disk_space(folder).free
    if free < needed:
        raise SlmError(
            "E_DISK_FULL",
            f"o checkpoint precisa de {needed / 1e6:.0f} MB e só há {free / 1e6:.0f} MB livres; "
            "os checkpoints anteriores continuam intactos.",
            where=folder,
            hint="Libere espaço (veja com: df -h) e repita o mesmo comando: ele continua daqui.",
        )


def drop_old(
    folder: Path, existing: list[Path], next_bytes: int, keep: int, protected: Collection[str] = ()
) -> None:
    """After a checkpoint was written. existing: those in `folder`, newest first; the newest always stays.

    With a number, all beyond it go. With `auto`, those beyond MAX_CHECKPOINTS, and the oldest ones while
    the next checkpoint, the final model (a third of it) and the spare part of the disk would not fit.
    protected: names that always stay.
    """
    count = len(existing)
    for old in reversed(existing[1:]):
        if keep == AUTO:
            now = disk_space(folder)
            enough = count <= MAX_CHECKPOINTS and now.free >= next_bytes + next_bytes // 3 + now.spare
        else:
            enough = count <= keep
        if enough:
            return
        if old.name not in protected and is_our_checkpoint(old):
            discard(old)
            count -= 1


def _complete(checkpoint: Path) -> bool:
    """Whether every file is there with its size; the sha256 would take minutes."""
    try:
        read_manifest(checkpoint, hashes=False)
    except SlmError:
        return False
    return True


def _size(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(path, name).lstat().st_size
            except OSError:  # gone since it was listed
                continue
    return total
