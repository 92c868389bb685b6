"""The rows of a task's dataset, from local files (JSONL, JSON, CSV, Parquet) or from the hub."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.eval.tasks.items import Row
from ptbr_slm.eval.tasks.task import Task
from ptbr_slm.text import BOM


@dataclass(frozen=True, slots=True)
class TaskData:
    """The rows of a task."""

    rows: list[Row]
    fewshot_rows: list[Row]
    sha256: str
    """Of the files that were read: two scores are of the same items where it agrees."""
    source: str
    """Path or hub address, for people."""


def load_task_data(task: Task, folders: Sequence[Path] = ()) -> TaskData:
    """Read what a task is asked over.

    folders: where files are looked for, by the name that the task gives them, before the current folder and
    the task's own. Raises E_TASK_DATA where they are nowhere or a line is broken, E_DEPENDENCY for Parquet
    without pyarrow.
    """
    path = _find(task, task.split, folders)
    rows, digest = read_rows(path)
    fewshot: list[Row] = []
    if task.num_fewshot:
        shots = _find(task, task.fewshot_split, folders)
        fewshot = rows if shots == path else read_rows(shots)[0]
    if not rows:
        raise SlmError(
            "E_TASK_DATA",
            f"a tarefa {task.name} não tem nenhuma linha.",
            where=path,
            hint="Baixe o arquivo de novo.",
        )
    return TaskData(rows, fewshot, digest, str(path))


def _find(task: Task, split: str, folders: Sequence[Path]) -> Path:
    named = task.dataset.data_files.get(split)
    if named is not None:
        for folder in [*folders, Path(), task.file.parent]:
            if (folder / named).is_file():
                return folder / named
    else:
        for folder in folders:
            for suffix in (".jsonl", ".json", ".csv", ".parquet"):
                for stem in (f"{task.name}-{split}", task.name):
                    if (folder / f"{stem}{suffix}").is_file():
                        return folder / f"{stem}{suffix}"
    what = named or f"{task.name}.jsonl (ou .csv, .parquet)"
    raise SlmError(
        "E_TASK_DATA",
        f"os dados da tarefa {task.name} ({task.facts.source}) não estão aqui.",
        where=what,
        hint=f"Ponha {what} em uma pasta e diga:  --task-data PASTA",
    )


def read_rows(path: Path) -> tuple[list[Row], str]:
    """Rows and sha256 of a file. Raises E_TASK_DATA for a line that is broken, and as `load_task_data`."""
    with os_errors(path):
        data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet(data, path), digest
    try:
        text = data.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _broken(path, "não está em UTF-8") from error
    if suffix == ".csv":
        return list(csv.DictReader(io.StringIO(text))), digest
    return _json(text, path), digest


def _json(text: str, path: Path) -> list[Row]:
    """JSON lines, or one JSON array of objects."""
    if text.lstrip().startswith("["):
        found: list[Any] = _parsed(text, str(path))
        places = [f"{path}, item {number}" for number in range(1, len(found) + 1)]
    else:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        places = [f"{path}:{number}" for number, _ in lines]
        found = [_parsed(line, place) for place, (_, line) in zip(places, lines, strict=True)]
    for place, row in zip(places, found, strict=True):
        if not isinstance(row, dict):
            raise _broken(place, "a linha não é um objeto JSON")
    return found


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _broken(place, "a linha não é JSON válido") from error


def _parquet(data: bytes, path: Path) -> list[Row]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        rows: list[Row] = parquet.read_table(pa.BufferReader(data)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, "o arquivo Parquet está quebrado") from error
    return rows


def _broken(where: str | Path, what: str) -> SlmError:
    return SlmError(
        "E_TASK_DATA", f"{what}.", where=where, hint="Baixe o arquivo de novo, ou corrija a linha."
    )
