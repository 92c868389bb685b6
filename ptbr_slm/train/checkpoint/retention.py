"""How many checkpoints stay: as many as the disk allows, and never fewer than the one to go on from.

Only a checkpoint whose manifest names every file in it is removed (`train.run_folder`); and, of a run that
goes on, the final model that a checkpoint still holds bit for bit: at 800m two checkpoints and a final model
are 22.2 GB, more than Kaggle keeps.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.atomic import discard
from ptbr_slm.storage.manifest import read_manifest
from ptbr_slm.storage.output import make_folder
from ptbr_slm.system import kaggle_root
from ptbr_slm.text import human_bytes
from ptbr_slm.train.config import AUTO
from ptbr_slm.train.run_folder import FINAL, is_our_checkpoint, is_our_model

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


def check_room(folder: Path, existing: list[Path], needed: int, keep: int) -> None:
    """Before a run goes on: its next checkpoint will fit, once what `ensure_space` may remove is gone.

    Raises E_DISK_FULL, which costs less now than after the first hours.
    """
    free = disk_space(folder.parent).free
    if free >= needed:
        return
    removable = list(_removable(folder, existing, keep))
    free += sum(map(_size, removable))
    if free < needed:
        raise _disk_full(folder, needed, free, final_stays=folder.parent / FINAL not in removable)


def ensure_space(folder: Path, existing: list[Path], needed: int, keep: int) -> None:
    """Before a checkpoint of `needed` bytes is written. existing: those in `folder`, newest first.

    Removes what `_removable` names until it fits. Raises E_DISK_FULL.
    """
    make_folder(folder)
    removable = _removable(folder, existing, keep)
    while (free := disk_space(folder).free) < needed:
        old = next(removable, None)
        if old is None:
            raise _disk_full(folder, needed, free, final_stays=True)
        discard(old)


def _removable(folder: Path, existing: list[Path], keep: int) -> Iterator[Path]:
    """What may go for a new checkpoint, in this order: with `auto` the oldest checkpoints, but for the newest
    complete one; then the final model, where a checkpoint that stays has the same weights.
    """
    newest = next((path for path in existing if _complete(path)), None)
    if keep == AUTO:
        yield from (old for old in reversed(existing) if old != newest and is_our_checkpoint(old))
    final = folder.parent / FINAL
    if newest is not None and is_our_model(final) and _weights(final) == (_weights(newest) or {}):
        yield final


def _weights(folder: Path) -> dict[str, str] | None:
    """sha256 of each file of weights, as the manifest has them; None where the folder is not whole."""
    try:
        files = read_manifest(folder, hashes=False).files
    except SlmError:
        return None
    return {name: facts["sha256"] for name, facts in files.items() if Path(name).match("model*.safetensors")}


def _disk_full(folder: Path, needed: int, free: int, *, final_stays: bool) -> SlmError:
    """final_stays: whether a final model of ours would be in the way, for no checkpoint repeats it."""
    final = folder.parent / FINAL
    hint = "Libere espaço (veja com: df -h) e repita o mesmo comando: ele continua daqui."
    if final_stays and is_our_model(final):
        size = human_bytes(_size(final))
        hint = (
            f"O modelo final de antes ocupa {size} e nenhum checkpoint o repete: leve {final} para outro "
            "disco, ou apague-o, e repita o mesmo comando."
        )
    return SlmError(
        "E_DISK_FULL",
        f"o checkpoint precisa de {needed / 1e6:.0f} MB e só há {free / 1e6:.0f} MB livres; "
        "os checkpoints anteriores continuam intactos.",
        where=folder,
        hint=hint,
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
