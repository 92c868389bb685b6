"""Raw texts out of one file of each format, in bounded memory. Broken pieces are counted, not raised."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ptbr_slm.data import parquet
from ptbr_slm.data.compressed import BROKEN, decompressed
from ptbr_slm.data.drops import DropCounts
from ptbr_slm.errors import os_errors
from ptbr_slm.text import BOM, decode, is_utf16

MAX_DOCUMENT_BYTES = 8 << 20
"""The largest document held in memory. The complete Bible is half of it."""


def raw_texts(path: Path, kind: str, drops: DropCounts) -> Iterator[tuple[str, str]]:
    """(text, source) for each document of a file; `kind` as in `files.FORMATS`.

    Raises E_NOT_FOUND, E_PERMISSION, E_IO, or E_DEPENDENCY where Parquet or zstandard cannot be read.
    """
    reader = {"text": _text_file, "jsonl": _json_lines, "parquet": _parquet}[kind]
    yield from reader(path, drops)


def _text_file(path: Path, drops: DropCounts) -> Iterator[tuple[str, str]]:
    """A .txt file is one document; above `MAX_DOCUMENT_BYTES` it is cut by paragraph, line or word."""
    with os_errors(path), path.open("rb") as file:
        rest, pieces = b"", 0
        while block := file.read(MAX_DOCUMENT_BYTES + 1 - len(rest)):
            drops.input_bytes += len(block)
            rest += block
            if not pieces and is_utf16(rest):
                drops.drop("utf16", str(path))
                drops.input_bytes += max(0, path.stat().st_size - len(rest))
                return
            if len(rest) <= MAX_DOCUMENT_BYTES:
                continue  # the end of the file, or a short read
            cut = _cut(rest)
            yield from _decoded(rest[:cut], str(path), drops)
            rest, pieces = rest[cut:], pieces + 1
    if pieces:
        drops.repair("split", str(path))
    if rest or not pieces:
        yield from _decoded(rest, str(path), drops)


def _cut(data: bytes) -> int:
    """Where to cut: after the last paragraph, line, sentence or word of the second half, or a character."""
    for border in (b"\n\n", b"\r\n\r\n", b"\n", b". ", b" "):
        at = data.rfind(border, len(data) // 2)
        if at >= 0:
            return at + len(border)
    at = len(data) - 1
    while at > len(data) - 4 and data[at] & 0xC0 == 0x80:  # inside a UTF-8 character
        at -= 1
    return at


def _decoded(data: bytes, source: str, drops: DropCounts) -> Iterator[tuple[str, str]]:
    try:
        yield decode(data), source
    except UnicodeDecodeError:
        drops.drop("binary" if b"\x00" in data else "not_utf8", source)


def _json_lines(path: Path, drops: DropCounts) -> Iterator[tuple[str, str]]:
    """The `text` of every line; blank lines mean nothing.

    A byte order mark may begin any line: `cat` joins files that begin with one.
    """
    with decompressed(path) as (stream, raw):
        number, before, something = 0, 0, False
        while True:
            with os_errors(path):
                try:
                    if not number and is_utf16(stream.peek(1 << 12)):
                        drops.drop("utf16", str(path))
                        drops.input_bytes += path.stat().st_size
                        return
                    line, whole = _bounded_line(stream)
                    if not line:
                        stream.read(1)  # raises where the end is an error (`compressed`)
                except BROKEN:  # gzip's error is an OSError too
                    drops.drop("corrupt_file", f"{path}:{number + 1}")
                    return
            if not line:
                if not something:
                    drops.drop("empty", str(path))
                return
            number += 1
            drops.input_bytes += raw.tell() - before
            before = raw.tell()
            source = f"{path}:{number}"
            line = line.removeprefix(BOM)
            something = something or not whole or bool(line.strip())
            if not whole:
                drops.drop("too_long", source)
            elif line.strip():
                yield from _json_text(line, source, drops)


def _json_text(line: bytes, source: str, drops: DropCounts) -> Iterator[tuple[str, str]]:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        drops.drop("not_utf8", source)
        return
    except (ValueError, RecursionError):
        drops.drop("bad_json", source)
        return
    text = value.get("text") if isinstance(value, dict) else None
    if isinstance(text, str):
        yield from _checked(text, source, drops)
    else:
        drops.drop("no_text", source)


def _checked(text: str, source: str, drops: DropCounts) -> Iterator[tuple[str, str]]:
    """A text from JSON or Parquet: lone surrogates (`"\\ud83d"`) are not Unicode text."""
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        drops.drop("not_utf8", source)
        return
    if size > MAX_DOCUMENT_BYTES:
        drops.drop("too_long", source)
    else:
        yield text, source


def _parquet(path: Path, drops: DropCounts) -> Iterator[tuple[str, str]]:
    for cell, source in parquet.cells(path, drops):
        if cell is None:
            drops.drop("no_text", source)
            continue
        try:
            text = cell.decode("utf-8")
        except UnicodeDecodeError:
            drops.drop("not_utf8", source)
            continue
        yield from _checked(text, source, drops)


def _bounded_line(stream: BinaryIO) -> tuple[bytes, bool]:
    """(line, True), or (its beginning, False) for one above `MAX_DOCUMENT_BYTES`, whose rest is skipped."""
    line = stream.readline(MAX_DOCUMENT_BYTES + 1)
    if len(line) <= MAX_DOCUMENT_BYTES or line.endswith(b"\n"):
        return line, True
    while (rest := stream.readline(1 << 20)) and not rest.endswith(b"\n"):
        pass
    return line[:1], False
