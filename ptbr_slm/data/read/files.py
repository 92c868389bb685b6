"""The files that an input names: itself, or every text, JSONL and Parquet file below a folder, sorted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from ptbr_slm.data.document import DocumentCounts
from ptbr_slm.errors import SlmError, os_errors

Format = Literal["text", "jsonl", "parquet"]

FORMATS: dict[str, Format] = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".jsonl.zst": "jsonl",
    ".parquet": "parquet",
}
"""Ending of a file's name -> how it is read."""


def format_of(path: Path) -> Format | None:
    """How a file of this name is read; None for a file that is not."""
    name = path.name.lower()
    return next((format for ending, format in FORMATS.items() if name.endswith(ending)), None)


def list_files(inputs: Sequence[Path], counts: DocumentCounts | None = None) -> Iterator[tuple[Path, Format]]:
    """(file, format) for everything `inputs` names; folders are walked, their hidden files left out.

    Links to folders are followed, after the rest; a folder is walked once, by whatever names it is reached.
    Raises E_NOT_FOUND for a missing input, E_PERMISSION for a named folder that may not be read and
    E_DATA_FORMAT for a named file of another type. Inside a folder, such a file is counted in `counts` as
    `unknown_format`, and what cannot be opened (no permission, a link to nothing) as `unreadable`.
    """
    counts = counts if counts is not None else DocumentCounts()
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
                format = format_of(path)
                if format is not None:
                    yield path, format
                else:
                    counts.drop("unknown_format", str(path))
            continue
        format = format_of(given)
        if format is None:
            raise SlmError(
                "E_DATA_FORMAT",
                f"não sei ler arquivos {given.suffix or 'sem extensão'} como texto.",
                where=given,
                hint=f"Use {', '.join(FORMATS)}, ou uma pasta com eles.",
            )
        yield given, format


def total_bytes(inputs: Sequence[Path]) -> int:
    """Bytes of all files that `inputs` names, on disk. Raises what `list_files` raises."""
    return sum(path.stat().st_size for path, _ in list_files(inputs))


def walk(folder: Path, counts: DocumentCounts) -> Iterator[Path]:
    """Files below `folder`, sorted, hidden files and folders left out; links to folders come last."""
    queue, visited = [folder], set[tuple[int, int]]()
    while queue:
        links: list[Path] = []
        for parent, folders, names in os.walk(queue.pop(0), onerror=lambda error: _unreadable(error, counts)):
            current = Path(parent)
            identity = (current.stat().st_dev, current.stat().st_ino)
            if identity in visited:  # two links to one folder, or one to a folder above
                folders.clear()
                continue
            visited.add(identity)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links += [current / name for name in folders if (current / name).is_symlink()]
            for path in (current / name for name in sorted(names) if not name.startswith(".")):
                if os.access(path, os.R_OK) and path.is_file():
                    yield path
                else:  # no permission, a link to nothing or to itself, a pipe, a socket
                    counts.drop("unreadable", str(path))
        queue += links


def _unreadable(error: OSError, counts: DocumentCounts) -> None:
    counts.drop("unreadable", str(error.filename))
