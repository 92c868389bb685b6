"""The files of a run's folder: their names, and which are ours. Only those are replaced or deleted."""

from __future__ import annotations

from pathlib import Path

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.lock import is_run_lock
from ptbr_slm.storage.output import real_output
from ptbr_slm.storage.record import foreign_files, kind_of

CHECKPOINTS, FINAL, REPORT = "checkpoints", "final", "report"
CONFIG, LOCK = "config.resolved.toml", "lock"
METRICS = "metrics.jsonl"
"""The records of the steps, which read as one undisturbed run."""
SESSIONS = "sessions.jsonl"
"""When each process began and ended, and what happened besides steps."""
COOLDOWN = "cooldown.jsonl"
"""The records of the last cooldown at a session's end."""
MICRO_BATCH = "micro_batch.json"
"""The micro-batch that fits, once the memory has run out."""
WRITTEN = (LOCK, FINAL, REPORT, CHECKPOINTS, METRICS, SESSIONS, COOLDOWN, MICRO_BATCH, CONFIG)
"""What a run replaces in its folder. `data` is not here: there it only adds a folder of its own."""


def is_our_checkpoint(folder: Path) -> bool:
    """Whether its manifest says that it is a checkpoint, and names every file in it.

    One in which the user keeps a file of their own, one without a manifest and a link are never deleted.
    """
    return not folder.is_symlink() and kind_of(folder) == "checkpoint" and not foreign_files(folder)


def is_our_model(folder: Path) -> bool:
    """As `is_our_checkpoint`, of a final model."""
    return not folder.is_symlink() and kind_of(folder) == "model" and not foreign_files(folder)


def check_run_folder(run: Path) -> None:
    """Refuse, with E_EXISTS, a folder that is no run of ours and holds something that a run would replace."""
    with os_errors(run):
        real = real_output(run)
        if not real.exists():
            return
        if not real.is_dir():
            raise _exists(run, "o destino já existe e não é uma pasta")
        if _is_run(real):
            return
        for name in WRITTEN:
            if _holds_something(real / name):
                raise _exists(real / name, f"esta pasta não é de um treino do ptbr-slm e já tem {name}")


def _is_run(run: Path) -> bool:
    """A lock that a run wrote, a checkpoint or model that says whose it is, or settings and records."""
    lock = run / LOCK
    if lock.is_file() and lock.stat().st_size and is_run_lock(lock):
        return True
    if (run / CONFIG).is_file() and (run / METRICS).is_file():
        return True
    if kind_of(run / FINAL) == "model":
        return True
    return any(kind_of(path) == "checkpoint" for path in (run / CHECKPOINTS).glob("step-*"))


def _holds_something(path: Path) -> bool:
    if path.is_dir():
        return any(path.iterdir())
    return path.is_symlink() or (path.exists() and path.stat().st_size > 0)


def _exists(where: Path, what: str) -> SlmError:
    return SlmError(
        "E_EXISTS", f"{what}: não vou substituí-lo.", where=where, hint="Escolha outra pasta em --output."
    )
