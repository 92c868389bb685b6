"""Reads one input file, whatever its format and compression, and says how far it is."""

from __future__ import annotations

import io
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ptbr_slm.data.document import Skipped
from ptbr_slm.data.read.archives import read_tar, read_zip
from ptbr_slm.data.read.compressed import MAGIC, Expansion, buffered, compression_of, decompressed
from ptbr_slm.data.read.files import STDIN, InputFile
from ptbr_slm.data.read.formats import READERS, TEXT_FIELD, Found
from ptbr_slm.data.read.parquet import read_parquet
from ptbr_slm.errors import SlmError, os_errors

_PEEK = 1 << 12


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
    try:
        with os_errors(file.path), ExitStack() as stack:
            if file.path == STDIN:
                yield from _read_stdin(text_field)
                return
            raw = stack.enter_context(file.path.open("rb"))
            before = os.fstat(raw.fileno())
            if file.format == "parquet":
                yield from read_parquet(raw, file.name, text_field, position)
            elif file.format == "zip":
                yield from read_zip(raw, file.name, text_field, before.st_size)
            else:
                stream, expansion = raw, Expansion(raw.tell)
                if raw.seekable():
                    position.raw = raw
                else:  # a pipe with a name does not tell where it is
                    pipe = _Pipe(raw)
                    stream, expansion = buffered(pipe.read), Expansion(lambda: pipe.bytes)
                yield from _read_stream(file, stream, expansion, text_field, stack)
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


def _read_stream(
    file: InputFile, raw: io.BufferedReader, expansion: Expansion, text_field: str, stack: ExitStack
) -> Found:
    compression = compression_of(file.path.name)
    stream = stack.enter_context(decompressed(raw, compression, expansion))
    if file.format == "tar":
        yield from read_tar(stream, file.name, text_field)
    else:
        yield from READERS[file.format](stream, file.name, text_field)


def _read_stdin(text_field: str) -> Found:
    """What comes from a pipe, its format told by its first bytes."""
    raw = sys.stdin.buffer
    assert isinstance(raw, io.BufferedReader)
    compression = next((kind for magic, kind in MAGIC.items() if raw.peek(8).startswith(magic)), None)
    pipe = _Pipe(raw)
    with (
        buffered(pipe.read) as source,
        decompressed(source, compression, Expansion(lambda: pipe.bytes)) as stream,
    ):
        head = stream.peek(_PEEK)
        begin = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
        if head[257:262] == b"ustar":
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
