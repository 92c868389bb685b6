"""Where an output really lies: links followed, folders made, what must not be replaced refused by name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from ptbr_slm.errors import SlmError, os_errors

_MOUNTS = Path("/proc/self/mountinfo")


def real_output(path: Path) -> Path:
    """`path` with every link followed: an output given by a link goes where the link points.

    Raises E_NOT_FOUND for a link that points to itself or into a folder that does not exist.
    """
    real = Path(os.path.realpath(path))
    if real.exists():
        return real
    for link in (path, *path.parents):
        if link.is_symlink() and not link.exists():
            goal = Path(os.path.realpath(link))
            if goal.is_symlink() or not goal.parent.is_dir():
                what = "si mesmo" if goal.is_symlink() else f"{goal}, que não existe"
                raise SlmError(
                    "E_NOT_FOUND",
                    f"o link {link} aponta para {what}.",
                    where=link,
                    hint="Crie a pasta para onde ele deve apontar, ou escolha outro destino.",
                )
    return real


def make_folder(path: Path) -> list[Path]:
    """Make a folder and its parents where they are missing; those made, outermost first.

    Raises E_EXISTS where a file is in the way, E_NOT_FOUND (`real_output`), E_PERMISSION or E_DISK_FULL.
    """
    made: list[Path] = []
    with os_errors(path):
        real = real_output(path)
        if real.is_dir():
            return made
        for folder in reversed((real, *real.parents)):
            if folder.is_dir():
                continue
            if folder.exists():
                raise _in_the_way(folder)
            try:
                folder.mkdir()
            except FileExistsError:  # another process made it since
                continue
            made.append(folder)
    return made


def remove_made(folders: list[Path]) -> None:
    """Remove the folders that `make_folder` made, as far as they are empty."""
    for folder in reversed(folders):
        try:
            folder.rmdir()
        except OSError:  # not empty: another process put something there
            return


def require_folder(path: Path) -> None:
    """Refuse, with E_EXISTS, a path for a folder where something else is."""
    if path.exists() and not path.is_dir():
        raise _in_the_way(path)


def require_file(path: Path) -> None:
    """Refuse a path for a file where a folder, a device, a pipe or a mount point is. E_EXISTS."""
    if path.is_dir():
        raise SlmError(
            "E_EXISTS",
            "o destino é uma pasta, e aqui se grava um arquivo.",
            where=path,
            hint="Acrescente o nome do arquivo ao caminho.",
        )
    if not path.exists():
        return
    if not path.is_file():
        raise SlmError(
            "E_EXISTS",
            "o destino não é um arquivo comum: não vou substituí-lo.",
            where=path,
            hint="Escolha o caminho de um arquivo.",
        )
    if is_mount(path):
        raise SlmError(
            "E_EXISTS",
            "o destino é um arquivo montado (ponto de montagem): ele não pode ser substituído.",
            where=path,
            hint="Grave em outro caminho, ou monte a pasta em vez do arquivo.",
        )


def require_replaceable(path: Path, ours: Callable[[bytes], bool], what: str) -> None:
    """Refuse a file whose content `ours` does not know: no text is lost to a mistyped `-o`. E_EXISTS.

    what: in Portuguese, with its article, what the file should be.
    """
    with os_errors(path):
        real = real_output(path)
        require_file(real)
        if not real.exists() or not (content := real.read_bytes()) or ours(content):
            return
    raise SlmError(
        "E_EXISTS",
        f"o destino já existe e não é {what}: não vou substituí-lo.",
        where=path,
        hint="Escolha outro arquivo, ou apague este, se não precisa mais dele.",
    )


def is_mount(path: Path) -> bool:
    """Whether `path` is a mount point, one bound from the same disk too (where Linux tells it)."""
    if os.path.ismount(path):
        return True
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    points = (fields[4] for line in lines if len(fields := line.split()) > 4)
    real = os.path.realpath(path)
    return any(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), p) == real for p in points)


def holds_working_folder(folder: Path) -> bool:
    """Whether this process's current folder is `folder` or in it: moving it away would strand a shell."""
    try:
        return Path.cwd().is_relative_to(os.path.realpath(folder))
    except OSError:  # the current folder was removed
        return False


def _in_the_way(path: Path) -> SlmError:
    return SlmError(
        "E_EXISTS",
        "o destino já existe e não é uma pasta: não vou substituí-lo.",
        where=path,
        hint="Escolha outro caminho para a pasta.",
    )
