"""What is stored about each document beside its tokens: where it came from, and what stages found out.

    train.documents.gz  valid.documents.gz    a line for each document of the split, in its order
    dropped.documents.gz                      a line for each document that was dropped, with the reason

A line is JSON. A new threshold can be tried on these lines alone, without a second reading of the texts
("tag first, filter later": Dolma, Soldaini et al., 2024, arXiv:2402.00159).
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, cast

from ptbr_slm.data.document import Attribute, Document
from ptbr_slm.data.index import FileEntry, SplitName, corrupt
from ptbr_slm.errors import os_errors

Group = Literal["train", "valid", "dropped"]
GROUPS: tuple[Group, ...] = ("train", "valid", "dropped")
EXCERPT = 400
"""Characters of a dropped text that are stored: its tokens are not."""
_COMPRESSION = 1
"""Of gzip, with 25 figures a record: 5.6 times smaller in 3 us. Level 6: 6.9 times in 8 us."""


@dataclass(frozen=True, slots=True)
class Record:
    """A document without its text."""

    source: str
    """As in `Document`."""
    id: str = ""
    licence: str = ""
    bytes: int = 0
    """UTF-8 bytes of the text."""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    reason: str = ""
    """Why it was dropped, a key of `document.REASONS`; empty for a document that was kept."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What the rule looked at."""
    excerpt: str = ""
    """The beginning of a text that was dropped."""
    origin: str = ""
    """The name of its source in the mixture file."""
    stage: str = ""
    """The stage that dropped it."""


class RecordWriter:
    """Writes the records of a prepared folder. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._files: dict[Group, BinaryIO] = {}

    def __enter__(self) -> RecordWriter:
        for group in GROUPS:
            raw = self._stack.enter_context(records_file(self._folder, group).open("wb"))
            zipped = gzip.GzipFile(
                "", "wb", _COMPRESSION, raw, mtime=0
            )  # no name or time: the same bytes again
            self._files[group] = cast(BinaryIO, self._stack.enter_context(zipped))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def keep(self, split: SplitName, document: Document) -> None:
        """Record a document of a split; in the order of the split."""
        self._write(split, document, {})

    def drop(self, document: Document, reason: str, figures: Mapping[str, float] | None = None) -> None:
        """Record a document that was dropped; `document` has the text and attributes it had by then."""
        self._write(
            "dropped",
            document,
            {"reason": reason, "figures": dict(figures or {}), "excerpt": document.text[:EXCERPT]},
        )

    def add(self, group: Group, record: Record) -> None:
        """Record what is known already."""
        body: dict[str, object] = {  # asdict would copy every attribute: 100 us a record
            "source": record.source,
            "id": record.id,
            "licence": record.licence,
            "bytes": record.bytes,
            "attributes": record.attributes,
            "reason": record.reason,
            "figures": record.figures,
            "excerpt": record.excerpt,
            "origin": record.origin,
            "stage": record.stage,
        }
        self._write_body(group, body)

    def finish(self) -> tuple[FileEntry, ...]:
        """Close, and describe the files for the index."""
        self._stack.close()
        entries = []
        for group in GROUPS:
            path = records_file(self._folder, group)
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            entries.append(FileEntry(path.name, path.stat().st_size, digest))
        return tuple(entries)

    def _write(self, group: Group, document: Document, more: Mapping[str, object]) -> None:
        body: dict[str, object] = {
            "source": document.source,
            "id": document.id,
            "licence": document.licence,
            "bytes": len(document.text.encode("utf-8", "surrogatepass")),
            "attributes": dict(document.attributes),
            **more,
        }
        self._write_body(group, body)

    def _write_body(self, group: Group, body: Mapping[str, object]) -> None:
        line = json.dumps(
            {key: value for key, value in body.items() if value or key == "source"}, separators=(",", ":")
        )
        self._files[group].write(line.encode("ascii") + b"\n")


def has_records(folder: Path) -> bool:
    """Whether the prepared `folder` has records; those made by earlier versions have none."""
    return all(records_file(folder, group).is_file() for group in GROUPS)


def read_records(folder: Path, group: Group) -> Iterator[Record]:
    """The records of a group, one at a time. Raises E_NOT_FOUND or E_DATA_CORRUPT."""
    path = records_file(folder, group)
    with os_errors(path):
        raw = path.open("rb")
    with raw, gzip.open(raw) as file:
        try:
            for line in file:
                yield _parsed(line)
        except (OSError, EOFError, ValueError, TypeError, RecursionError) as error:
            raise corrupt(f"{path.name} está corrompido.", path) from error


def _parsed(line: bytes) -> Record:
    """Raises ValueError or TypeError for what is no record."""
    body = json.loads(line)
    if not isinstance(body, dict):
        raise ValueError("a record is an object")
    for key in ("attributes", "figures"):
        if not isinstance(body.get(key, {}), dict):
            raise ValueError(key)
    record = Record(**body)
    if not isinstance(record.bytes, int) or not isinstance(record.source, str):
        raise ValueError("bytes, source")
    return record


def records_file(folder: Path, group: Group) -> Path:
    """Where the records of a group are."""
    return folder / f"{group}.documents.gz"
