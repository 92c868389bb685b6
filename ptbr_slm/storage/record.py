"""What a folder says that we wrote in it: manifest.json, or index.json of prepared data.

Only files that such a record names are ours to delete; whatever else lies there belongs to the user.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECORDS = ("manifest.json", "index.json")
"""Written last, so that a folder without them is not whole."""


def kind_of(folder: Path) -> str | None:
    """`model`, `checkpoint`, `export`, `prepared-data`, ... of a folder that we wrote; None for another's.

    Only the record itself is read: a folder whose other files are damaged is still ours.
    """
    body = _body(folder)
    return None if body is None else str(body["kind"])


def recorded_files(folder: Path) -> set[str]:
    """Relative POSIX paths of the record and of the files that it names; empty without a record."""
    body = _body(folder)
    if body is None:
        return set()
    if isinstance(body.get("files"), dict):
        return {*body["files"], "manifest.json"}
    return {*_shards([body["splits"], body.get("store"), body.get("recipe")]), "tokenizer.json", "index.json"}


def foreign_files(folder: Path) -> list[str]:
    """Relative POSIX paths of the files and links in `folder` that its record does not name."""
    known = recorded_files(folder)
    return [name for name in files_below(folder) if name not in known]


def files_below(folder: Path) -> list[str]:
    """Relative POSIX paths of all files below `folder`, sorted; links count as files and are not followed."""
    found = []
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        found += [Path(parent, name).relative_to(folder).as_posix() for name in (*names, *links)]
    return sorted(found)


def _body(folder: Path) -> dict[str, Any] | None:
    for name in RECORDS:
        try:
            body = json.loads((folder / name).read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(body, dict) and isinstance(body.get("kind"), str) and _ours(body):
            return body
    return None


def _ours(body: dict[str, Any]) -> bool:
    """Whether the keys that only our records have are there."""
    if not isinstance(body.get("schema"), int):
        return False
    return isinstance(body.get("files"), dict) or isinstance(body.get("splits"), dict)


def _shards(value: object) -> Iterator[str]:
    """Every `"file": NAME` of prepared data's splits and records."""
    if isinstance(value, dict):
        if isinstance(value.get("file"), str):
            yield value["file"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _shards(item)
