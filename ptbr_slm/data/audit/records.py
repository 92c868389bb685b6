"""Reads what a prepared folder stores about every document of its input: `documents.parquet`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ptbr_slm.data.document import Attribute
from ptbr_slm.data.index import corrupt
from ptbr_slm.errors import missing_extra

Group = Literal["train", "valid", "dropped"]
NAME = "documents.parquet"
_ATTRIBUTE = "attribute."
_TEXTS = ("source", "from", "licence", "decision", "reason", "figures", "excerpt")
_NUMBERS = ("bytes", "tokens", "copies")


@dataclass(frozen=True, slots=True)
class Record:
    """A document without its text."""

    source: str
    """As in `Document`."""
    origin: str = ""
    """The name of its source in the mixture."""
    licence: str = ""
    bytes: int = 0
    """UTF-8 bytes of the text."""
    tokens: int = 0
    """In the shards; 0 where unknown."""
    copies: int = 0
    """How often it is in the data; 0 where unknown."""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    reason: str = ""
    """Why it was dropped, a key of `document.REASONS`; empty for a document that was kept."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What the rule looked at."""
    excerpt: str = ""
    """The beginning of the text."""


def has_records(folder: Path) -> bool:
    """Whether the prepared `folder` has records: data prepared without a mixture have none."""
    return (folder / NAME).is_file()


def read_records(folder: Path) -> Iterator[tuple[Group, Record]]:
    """(train, valid or dropped; record), in the order of the input.

    Raises E_DATA_CORRUPT, or E_DEPENDENCY without pyarrow.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError as error:
        raise missing_extra("pyarrow") from error
    path = folder / NAME
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=4_096):
                for row in batch.to_pylist():
                    yield _group(row), _record(row)
    except (ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise corrupt(f"{NAME} está corrompido.", path) from error


def _group(row: Mapping[str, Any]) -> Group:
    group = row["decision"]
    if group not in ("train", "valid", "dropped"):
        raise ValueError(group)
    checked: Group = group
    return checked


def _record(row: Mapping[str, Any]) -> Record:
    """Raises KeyError, TypeError or ValueError for what is no record."""
    texts = {name: str(row[name] or "") for name in _TEXTS}
    numbers = {name: int(row[name] or 0) for name in _NUMBERS}
    dropped = texts["decision"] == "dropped"
    figures = json.loads(texts["figures"] or "{}")
    return Record(
        source=texts["source"],
        origin=texts["from"],
        licence=texts["licence"],
        **numbers,
        attributes={
            name.removeprefix(_ATTRIBUTE): value
            for name, value in row.items()
            if name.startswith(_ATTRIBUTE) and value is not None
        },
        reason=(texts["reason"] or "unknown") if dropped else "",
        figures={str(name): float(value) for name, value in figures.items()},
        excerpt=texts["excerpt"],
    )
