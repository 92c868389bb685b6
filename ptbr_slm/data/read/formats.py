"""The documents of one file of each format, as they are stored, in bounded memory.

What cannot be read is counted, not raised; the unit of failure is the line or row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ptbr_slm.data.document import Document, DocumentCounts
from ptbr_slm.data.read.compressed import CORRUPT, decompressed
from ptbr_slm.data.read.files import Format
from ptbr_slm.data.read.parquet import text_cells
from ptbr_slm.errors import os_errors
from ptbr_slm.text import BOM, decode, is_utf16

MAX_DOCUMENT_BYTES = 8 << 20
"""The largest document held in memory. The complete Bible is half of it."""


def raw_documents(path: Path, format: Format, counts: DocumentCounts) -> Iterator[Document]:
    """Each document of a file, before any cleaning.

    Raises E_NOT_FOUND, E_PERMISSION, E_IO, or E_DEPENDENCY where Parquet or zstandard cannot be read.
    """
    return _READERS[format](path, counts)


def _text_file(path: Path, counts: DocumentCounts) -> Iterator[Document]:
    """A .txt file is one document; above `MAX_DOCUMENT_BYTES` it is cut by paragraph, line or word."""
    with os_errors(path), path.open("rb") as file:
        rest, pieces = b"", 0
        while block := file.read(MAX_DOCUMENT_BYTES + 1 - len(rest)):
            counts.input_bytes += len(block)
            rest += block
            if not pieces and is_utf16(rest):
                counts.drop("utf16", str(path))
                counts.input_bytes += max(0, path.stat().st_size - len(rest))
                return
            if len(rest) <= MAX_DOCUMENT_BYTES:
                continue  # the end of the file, or a short read
            cut = _cut(rest)
            yield from _decoded(rest[:cut], str(path), counts)
            rest, pieces = rest[cut:], pieces + 1
    if pieces:
        counts.repair("split", str(path))
    if rest or not pieces:
        yield from _decoded(rest, str(path), counts)


def _cut(data: bytes) -> int:
    """Where to cut: after the last paragraph, line, sentence or word of the second half, or a character."""
    for separator in (b"\n\n", b"\r\n\r\n", b"\n", b". ", b" "):
        at = data.rfind(separator, len(data) // 2)
        if at >= 0:
            return at + len(separator)
    at = len(data) - 1
    while at > len(data) - 4 and data[at] & 0xC0 == 0x80:  # inside a UTF-8 character
        at -= 1
    return at


def _decoded(data: bytes, source: str, counts: DocumentCounts) -> Iterator[Document]:
    try:
        yield Document(decode(data), source)
    except UnicodeDecodeError:
        counts.drop("binary" if b"\x00" in data else "not_utf8", source)


def _json_lines(path: Path, counts: DocumentCounts) -> Iterator[Document]:
    """The `text` of every line; blank lines mean nothing.

    A byte order mark may begin any line: `cat` joins files that begin with one.
    """
    with decompressed(path) as (stream, raw):
        number, position, found = 0, 0, False
        while True:
            with os_errors(path):
                try:
                    if not number and is_utf16(stream.peek(1 << 12)):
                        counts.drop("utf16", str(path))
                        counts.input_bytes += path.stat().st_size
                        return
                    line, whole = _bounded_line(stream)
                    if not line:
                        stream.read(1)  # raises where the end is an error (`compressed`)
                except CORRUPT:  # gzip's error is an OSError too
                    counts.drop("corrupt_file", f"{path}:{number + 1}")
                    return
            if not line:
                if not found:
                    counts.drop("empty", str(path))
                return
            number += 1
            counts.input_bytes += raw.tell() - position
            position = raw.tell()
            source = f"{path}:{number}"
            line = line.removeprefix(BOM)
            found = found or not whole or bool(line.strip())
            if not whole:
                counts.drop("too_long", source)
            elif line.strip():
                yield from _json_text(line, source, counts)


def _json_text(line: bytes, source: str, counts: DocumentCounts) -> Iterator[Document]:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        counts.drop("not_utf8", source)
        return
    except (ValueError, RecursionError):
        counts.drop("bad_json", source)
        return
    text = value.get("text") if isinstance(value, dict) else None
    if isinstance(text, str):
        yield from _checked(text, source, counts)
    else:
        counts.drop("no_text", source)


def _checked(text: str, source: str, counts: DocumentCounts) -> Iterator[Document]:
    """A text from JSON or Parquet: lone surrogates (`"\\ud83d"`) are not Unicode text."""
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        counts.drop("not_utf8", source)
        return
    if size > MAX_DOCUMENT_BYTES:
        counts.drop("too_long", source)
    else:
        yield Document(text, source)


def _parquet(path: Path, counts: DocumentCounts) -> Iterator[Document]:
    for cell, source in text_cells(path, counts):
        if cell is None:
            counts.drop("no_text", source)
            continue
        try:
            text = cell.decode("utf-8")
        except UnicodeDecodeError:
            counts.drop("not_utf8", source)
            continue
        yield from _checked(text, source, counts)


def _bounded_line(stream: BinaryIO) -> tuple[bytes, bool]:
    """(line, True), or (its beginning, False) for one above `MAX_DOCUMENT_BYTES`, whose rest is skipped."""
    line = stream.readline(MAX_DOCUMENT_BYTES + 1)
    if len(line) <= MAX_DOCUMENT_BYTES or line.endswith(b"\n"):
        return line, True
    while (rest := stream.readline(1 << 20)) and not rest.endswith(b"\n"):
        pass
    return line[:1], False


_READERS: dict[Format, Callable[[Path, DocumentCounts], Iterator[Document]]] = {
    "text": _text_file,
    "jsonl": _json_lines,
    "parquet": _parquet,
}
