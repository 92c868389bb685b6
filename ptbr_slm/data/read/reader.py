"""Reads one input file, whatever its format and compression, and says how far it is."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ptbr_slm.data.document import Skipped
from ptbr_slm.data.read.archives import read_tar, read_zip
from ptbr_slm.data.read.compressed import MAGIC, Expansion, buffered, compression_of, decompressed
from ptbr_slm.data.read.files import STDIN, InputFile
from ptbr_slm.data.read.formats import READERS, TEXT_FIELD, Found, Rows, csv_rows, json_rows
from ptbr_slm.data.read.json_list import json_list_rows
from ptbr_slm.data.read.parquet import parquet_rows, read_parquet
from ptbr_slm.errors import SlmError, os_errors

_PEEK = 1 << 12
_Read = TypeVar("_Read")


@dataclass(slots=True)
class Position:
    """How far the reading of a file is."""

    bytes: int = 0
    """Read so far, as they are on disk."""
    raw: io.BufferedReader | None = None
    """The file, while it is read from front to back."""

    @property
    def now(self) -> int:
        """Bytes read so far."""
        return self.bytes if self.raw is None else self.raw.tell()


def read_file(file: InputFile, text_field: str = TEXT_FIELD, position: Position | None = None) -> Found:
    """Each document of a file, before any cleaning, and what of it could not be read.

    Raises E_DEPENDENCY where a package that reads it is missing. A file that the user named raises
    E_NOT_FOUND, E_PERMISSION or E_IO; one of a folder is `Skipped` as `unreadable`.
    """
    position = position if position is not None else Position()

    def documents(raw: io.BufferedReader, stack: ExitStack) -> Found:
        if file.path == STDIN:
            yield from _stdin_documents(_stdin(stack), text_field)
        elif file.format == "parquet":
            yield from read_parquet(raw, file.name, text_field, position)
        elif file.format == "zip":
            yield from read_zip(raw, file.name, text_field, os.fstat(raw.fileno()).st_size)
        elif file.format == "tar":
            yield from read_tar(_decompressed(file, raw, position, stack), file.name, text_field)
        else:
            stream = _decompressed(file, raw, position, stack)
            yield from READERS[file.format](stream, file.name, text_field)

    return _guarded(file, position, documents)


def read_rows(file: InputFile, position: Position | None = None) -> Rows:
    """Each row of a file of `ROW_FORMATS`, or of the standard input (JSON or CSV), with all its fields.

    What is no row, and the errors, are told as in `read_file`.
    """
    position = position if position is not None else Position()

    def rows(raw: io.BufferedReader, stack: ExitStack) -> Rows:
        if file.path == STDIN:
            stream = _stdin(stack)
            begin = _begin(stream)
            read = json_list_rows if begin.startswith((b"[", b"{")) else csv_rows
            yield from read(stream, str(STDIN))
        elif file.format == "parquet":
            yield from parquet_rows(raw, file.name, position)
        else:
            stream = _decompressed(file, raw, position, stack)
            yield from {"jsonl": json_rows, "json": json_list_rows, "csv": csv_rows}[file.format](
                stream, file.name
            )

    return _guarded(file, position, rows)


def _guarded(
    file: InputFile,
    position: Position,
    read: Callable[[io.BufferedReader, ExitStack], Iterator[_Read | Skipped]],
) -> Iterator[_Read | Skipped]:
    """What `read` gives of the opened file; errors as `read_file` says, and a file that changed meanwhile."""
    try:
        with os_errors(file.path), ExitStack() as stack:
            if file.path == STDIN:
                raw = sys.stdin.buffer
                assert isinstance(raw, io.BufferedReader)
                yield from read(raw, stack)
                return
            raw = stack.enter_context(file.path.open("rb"))
            before = os.fstat(raw.fileno())
            yield from read(raw, stack)
            after = os.fstat(raw.fileno())
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                yield Skipped("changed", file.name)
    except SlmError as error:
        if file.named or error.code not in ("E_NOT_FOUND", "E_PERMISSION", "E_IO"):
            raise
        position.raw = None  # closed
        yield Skipped("unreadable", file.name)
    finally:
        position.raw = None
        position.bytes = _size(file.path)


class _Pipe:
    """A pipe, and the bytes that came out of it so far."""

    def __init__(self, raw: io.BufferedReader) -> None:
        self._raw = raw
        self.bytes = 0

    def read(self, size: int) -> bytes:
        """What is there, up to `size`; none at the end."""
        data = self._raw.read1(size)
        self.bytes += len(data)
        return data


def _decompressed(
    file: InputFile, raw: io.BufferedReader, position: Position, stack: ExitStack
) -> io.BufferedReader:
    """The content of a file that is read from front to back; `position` follows it where it can."""
    stream, expansion = raw, Expansion(raw.tell)
    if raw.seekable():
        position.raw = raw
    else:  # a pipe with a name does not tell where it is
        pipe = _Pipe(raw)
        stream, expansion = buffered(pipe.read), Expansion(lambda: pipe.bytes)
    return stack.enter_context(decompressed(stream, compression_of(file.path.name), expansion))


def _stdin(stack: ExitStack) -> io.BufferedReader:
    """What comes from a pipe, decompressed."""
    raw = sys.stdin.buffer
    assert isinstance(raw, io.BufferedReader)
    compression = next((kind for magic, kind in MAGIC.items() if raw.peek(8).startswith(magic)), None)
    pipe = _Pipe(raw)
    source = stack.enter_context(buffered(pipe.read))
    return stack.enter_context(decompressed(source, compression, Expansion(lambda: pipe.bytes)))


def _begin(stream: io.BufferedReader) -> bytes:
    """The first characters of a text, in lower case."""
    return stream.peek(_PEEK).removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()


def _stdin_documents(stream: io.BufferedReader, text_field: str) -> Found:
    """The documents of the standard input, its format told by its first bytes."""
    begin = _begin(stream)
    if stream.peek(_PEEK)[257:262] == b"ustar":
        yield from read_tar(stream, str(STDIN), text_field)
    elif begin.startswith(b"{"):
        yield from READERS["jsonl"](stream, str(STDIN), text_field)
    elif begin.startswith((b"<mediawiki", b"<?xml")):
        yield from READERS["mediawiki"](stream, str(STDIN), text_field)
    elif begin.startswith((b"<!doctype html", b"<html")):
        yield from READERS["html"](stream, str(STDIN), text_field)
    else:
        yield from READERS["text"](stream, str(STDIN), text_field)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path != STDIN else 0
    except OSError:
        return 0
