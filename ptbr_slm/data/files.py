"""Which files an input names: itself, or every text, JSONL and Parquet file below a folder, sorted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ptbr_slm.data.drops import DropCounts
from ptbr_slm.errors import SlmError

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

    Raises E_NOT_FOUND for a missing input and E_DATA_FORMAT for a named file of another type; such files
    inside a folder are counted in `drops` as `unknown_format`.
    """
    for given in inputs:
        if not given.exists():
            raise SlmError(
                "E_NOT_FOUND",
                "a entrada não existe.",
                where=given,
                hint="Confira o caminho (ls) e repita o comando.",
            )
        if given.is_dir():
            for path in walk(given):
                kind = format_of(path)
                if kind is not None:
                    yield path, kind
                elif drops is not None:
                    drops.drop("unknown_format", str(path))
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


def walk(folder: Path) -> Iterator[Path]:
    """Files below `folder`, sorted, hidden files and folders left out."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent) / name
            if not name.startswith(".") and path.is_file():
                yield path
