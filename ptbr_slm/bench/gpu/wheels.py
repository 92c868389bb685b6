"""Wheels in a folder, whole or in pieces, unpacked into a temporary folder: nothing is installed.

A wheel is a zip of what would lie in site-packages (PEP 427). Pieces are what `split -b` made of one, named
`NAME.whl.part-…`, and are joined in the order of their names.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ptbr_slm.errors import SlmError, os_errors

PIECE = ".whl.part-"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheels:
    """What was unpacked."""

    environment: dict[str, str] = field(default_factory=dict)
    """PYTHONPATH with the unpacked folder in front, and LD_LIBRARY_PATH; empty where nothing was unpacked."""
    summary: str = ""
    """Names of the wheels, and of those that were left out and why, in Portuguese."""


@contextmanager
def open_wheels(folder: Path | None) -> Iterator[Wheels]:
    """Every wheel of `folder`, unpacked until the block ends. Raises E_NOT_FOUND, E_DISK_FULL, E_PERMISSION.

    A wheel that is not whole, or for another Python, is left out and named.
    """
    if folder is None:
        yield Wheels()
        return
    if not folder.is_dir():
        raise SlmError(
            "E_NOT_FOUND",
            "a pasta de wheels não existe.",
            where=folder,
            hint="No Kaggle, ache-a com:  find /kaggle/input -name '*.whl*'",
        )
    with tempfile.TemporaryDirectory(prefix="ptbr-slm-wheels-") as scratch:
        target = Path(scratch) / "site"
        target.mkdir()
        used, refused = [], []
        for name, pieces in sorted(found(folder).items()):
            why = suits(name) or _unpack(name, pieces, target)
            if why:
                refused.append(f"{name} ({why})")
            else:
                used.append(name)
        summary = ", ".join(used) or "nenhum wheel que sirva"
        if refused:
            summary += f"; deixados de fora: {', '.join(refused)}"
        yield Wheels(environment=_environment(target) if used else {}, summary=summary)


def _environment(target: Path) -> dict[str, str]:
    """What finds the unpacked packages, and CUDA's libraries.

    ONNX Runtime looks for those of the nvidia packages beside itself (`onnxruntime.preload_dlls`), where the
    installed ones are not: LD_LIBRARY_PATH names them.
    """
    roots = [target, *(Path(entry) for entry in sys.path if entry)]
    libraries = dict.fromkeys(str(path) for root in roots for path in sorted(root.glob("nvidia/*/lib")))
    added = {"PYTHONPATH": [str(target)], "LD_LIBRARY_PATH": list(libraries)}
    before = {name: os.environ.get(name, "") for name in added}
    return {
        name: os.pathsep.join([*paths, *([before[name]] if before[name] else [])])
        for name, paths in added.items()
        if paths
    }


def found(folder: Path) -> dict[str, list[Path]]:
    """File name of each wheel -> the file, or its pieces in order."""
    wheels: dict[str, list[Path]] = {path.name: [path] for path in folder.rglob("*.whl")}
    pieces: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob(f"*{PIECE}*")):
        pieces.setdefault(path.name.partition(PIECE)[0] + ".whl", []).append(path)
    return {**pieces, **wheels}


def suits(name: str) -> str:
    """Why a wheel of this file name is not for this Python; empty where it is, or where that is unknown."""
    parts = name.removesuffix(".whl").split("-")
    if len(parts) < 5:
        return "isto não é o nome de um wheel"
    python, abi = parts[-3], parts[-2]
    mine = f"cp{sys.version_info.major}{sys.version_info.minor}"
    if abi in ("none", "abi3") or not python.startswith("cp") or mine in python.split("."):
        return ""
    return f"é para {python}, e este Python é {mine}"


def _unpack(name: str, pieces: list[Path], target: Path) -> str:
    """Join and unpack one wheel; why it could not be, or empty."""
    with tempfile.TemporaryDirectory(prefix="ptbr-slm-wheel-") as scratch:
        whole = pieces[0]
        with os_errors(target):
            if len(pieces) > 1 or PIECE in whole.name:
                whole = Path(scratch) / name
                with whole.open("wb") as joined:
                    for piece in pieces:
                        with piece.open("rb") as part:
                            shutil.copyfileobj(part, joined)
            try:
                with zipfile.ZipFile(whole) as archive:
                    archive.extractall(target)
            except zipfile.BadZipFile:
                return "não está inteiro: falta um pedaço, ou um nome está trocado"
    return ""
