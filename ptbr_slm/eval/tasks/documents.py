"""The rows of a task's dataset, from local files (JSONL, JSON, CSV, Parquet) or from the Hugging Face hub.

What the hub has is read as the hub converts it: the branch `refs/convert/parquet` holds
CONFIGURATION/SPLIT/*.parquet for every public dataset, whatever its own files look like. The first download
decides the commit; later ones use the same, without a network.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptbr_slm.data.sources.hub import endpoint
from ptbr_slm.data.sources.hub_inputs import DownloadOptions, already_here, local_inputs
from ptbr_slm.data.sources.hub_names import HubName
from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.eval.tasks.items import Row
from ptbr_slm.eval.tasks.task import Task
from ptbr_slm.text import BOM

CONVERTED = "refs/convert/parquet"
"""The hub's branch of converted datasets (huggingface.co/docs/dataset-viewer/parquet)."""
_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


@dataclass(frozen=True, slots=True)
class TaskData:
    """The rows of a task."""

    rows: list[Row]
    fewshot_rows: list[Row]
    sha256: str
    """Of the files that were read: two scores are of the same items where it agrees."""
    source: str
    """Path or hub address with its commit, for people."""


def load_task_data(
    task: Task, folders: Sequence[Path] = (), *, download: DownloadOptions | None = None
) -> TaskData:
    """Read what a task is asked over.

    folders: where files are looked for, by the name that the task gives them, before the current folder and
    the task's own; for a dataset of the hub also by the names of `file_names`. download: how to bring what is
    not here; None for only what is here, the hub's cache included.
    Raises E_TASK_DATA where the data is nowhere, cannot be downloaded or has a broken line, E_DEPENDENCY for
    Parquet without pyarrow.
    """
    found = [_find(task, task.split, folders, download)]
    if task.num_fewshot and task.fewshot_split != task.split:
        found.append(_find(task, task.fewshot_split, folders, download))
    read = [_read_all(paths) for paths, _ in found]
    for (rows, _), (_, source) in zip(read, found, strict=True):
        if not rows:
            raise SlmError(
                "E_TASK_DATA",
                f"a tarefa {task.name} não tem nenhuma linha.",
                where=source,
                hint="Baixe o arquivo de novo.",
            )
    digests = [digest for _, digest in read]
    fewshot = read[-1][0] if task.num_fewshot else []
    return TaskData(read[0][0], fewshot, _combined(digests), found[0][1])


def is_here(task: Task, folders: Sequence[Path] = ()) -> bool:
    """Whether `load_task_data` finds everything without a network."""
    splits = {task.split} | ({task.fewshot_split} if task.num_fewshot else set())
    return all(_local(task, split, folders) for split in splits)


def file_names(task: Task, split: str) -> list[str]:
    """Names, without a suffix, under which a folder may hold the split of a task of the hub; best first."""
    repo, config = task.dataset.path.rpartition("/")[2], task.dataset.name
    stems = [task.name, *([f"{repo}-{config}"] if config else []), repo]
    only = [*stems] if split == task.split else []
    return [*(f"{stem}-{split}" for stem in stems), *only]


Found = tuple[list[Path], str]
"""Files, and where they are, for people."""


def _find(task: Task, split: str, folders: Sequence[Path], download: DownloadOptions | None) -> Found:
    found = _local(task, split, folders)
    if found is not None:
        return found
    named = task.dataset.data_files.get(split)
    if named is None and not task.dataset.data_files and download is not None:
        return _downloaded(task, split, download)
    what = named or f"{file_names(task, split)[0]}.parquet"
    at_hub = "" if named else f"Baixe {_address(task, split)}, e salve como {what}. "
    raise SlmError(
        "E_TASK_DATA",
        f"os dados da tarefa {task.name} ({task.facts.source}) não estão aqui.",
        where=what,
        hint=f"{at_hub}Ponha {what} em uma pasta e diga:  --task-data PASTA",
    )


def _local(task: Task, split: str, folders: Sequence[Path]) -> Found | None:
    """A file of the user's, or what an earlier call brought from the hub."""
    named = task.dataset.data_files.get(split)
    if named is not None:
        places = [folder / named for folder in [*folders, Path(), task.file.parent]]
    else:
        places = [
            folder / f"{stem}{suffix}"
            for folder in folders
            for stem in file_names(task, split)
            for suffix in _SUFFIXES
        ]
    for path in places:
        if path.is_file():
            return [path], str(path)
    if task.dataset.data_files:
        return None
    pinned = already_here(_hub_name(task, split))
    return (_hub_files(pinned[0], DownloadOptions()), str(pinned[0])) if pinned else None


def _hub_name(task: Task, split: str) -> HubName:
    dataset = task.dataset
    path = f"{dataset.name or 'default'}/{split}/*.parquet"
    return HubName(dataset.path, dataset.revision or CONVERTED, path)


def _hub_files(name: HubName, options: DownloadOptions) -> list[Path]:
    return list(local_inputs([Path(str(name))], options).paths)


def _downloaded(task: Task, split: str, options: DownloadOptions) -> Found:
    name = _hub_name(task, split)
    options.note(f"{task.name}: dados de {task.dataset.path}, licença: {task.facts.licence}")
    try:
        _hub_files(name, options)
        pinned = already_here(name)[0]
        return _hub_files(pinned, options), str(pinned)
    except SlmError as error:
        if error.code not in ("E_FETCH", "E_NOT_FOUND"):
            raise
        what = f"{file_names(task, split)[0]}.parquet"
        raise SlmError(
            "E_TASK_DATA",
            f"não consegui baixar os dados da tarefa {task.name}: {error.message}",
            where=str(name),
            hint=f"Baixe {_address(task, split)} em outra máquina, salve como {what} em uma pasta, e diga:  "
            "--task-data PASTA",
        ) from error


def _address(task: Task, split: str) -> str:
    """Where a browser gets the file."""
    name = _hub_name(task, split)
    file = name.path.replace("*", "0000")
    return f"{endpoint('')}/datasets/{name.repo}/resolve/{name.revision.replace('/', '%2F')}/{file}"


def _read_all(paths: Sequence[Path]) -> tuple[list[Row], str]:
    read = [read_rows(path) for path in paths]
    return [row for rows, _ in read for row in rows], _combined([digest for _, digest in read])


def _combined(digests: Sequence[str]) -> str:
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


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
