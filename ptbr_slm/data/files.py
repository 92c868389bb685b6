"""Which files an input names: itself, or every text, JSONL and Parquet file below a folder, sorted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ptbr_slm.data.drops import DropCounts
from ptbr_slm.errors import SlmError, os_errors

FORMATS: dict[str, str] = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".jsonl.zst": "jsonl",
    ".parquet": "parquet",
}
"""Ending of a file's name -> how it is read."""


def format_of(path: Path) -> str | None:
    """`text`, `jsonl`, `parquet`, or None for a file we do not read."""
    name = path.name.lower()
    return next((kind for ending, kind in FORMATS.items() if name.endswith(ending)), None)


def list_files(inputs: Sequence[Path], drops: DropCounts | None = None) -> Iterator[tuple[Path, str]]:
    """(file, format) for everything `inputs` names; folders are walked, their hidden files left out.

    Links to folders are followed, after the rest; a folder is walked once, by whatever names it is reached.
    Raises E_NOT_FOUND for a missing input, E_PERMISSION for a named folder that may not be read and
    E_DATA_FORMAT for a named file of another type. Inside a folder, such a file is counted in `drops` as
    `unknown_format`, and what cannot be opened (no permission, a link to nothing) as `unreadable`.
    """
    counts = drops if drops is not None else DropCounts()
    for given in inputs:
        if not given.exists():
            raise SlmError(
                "E_NOT_FOUND",
                "a entrada não existe.",
                where=given,
                hint="Confira o caminho (ls) e repita o comando.",
            )
        if given.is_dir():
            with os_errors(given), os.scandir(given):  # may it be read at all?
                pass
            for path in walk(given, counts):
                kind = format_of(path)
                if kind is not None:
                    yield path, kind
                else:
                    counts.drop("unknown_format", str(path))
            continue
        kind = format_of(given)
        if kind is None:
            raise SlmError(
                "E_DATA_FORMAT",
                f"não sei ler arquivos {given.suffix or 'sem extensão'} como texto.",
                where=given,
                hint=f"Use {', '.join(FORMATS)}, ou uma pasta com eles.",
            )
        yield given, kind


def walk(folder: Path, drops: DropCounts) -> Iterator[Path]:
    """Files below `folder`, sorted, hidden files and folders left out; links to folders come last."""
    waiting, visited = [folder], set[tuple[int, int]]()
    while waiting:
        top = waiting.pop(0)
        links: list[Path] = []
        for parent, folders, names in os.walk(top, onerror=lambda error: _unreadable(error, drops)):
            here = Path(parent)
            identity = (here.stat().st_dev, here.stat().st_ino)
            if identity in visited:  # two links to one folder, or one to a folder above
                folders.clear()
                continue
            visited.add(identity)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links += [here / name for name in folders if (here / name).is_symlink()]
            for path in (here / name for name in sorted(names) if not name.startswith(".")):
                if os.access(path, os.R_OK) and path.is_file():
                    yield path
                else:  # no permission, a link to nothing or to itself, a pipe, a socket
                    drops.drop("unreadable", str(path))
        waiting += links


def _unreadable(error: OSError, drops: DropCounts) -> None:
    drops.drop("unreadable", str(error.filename))
