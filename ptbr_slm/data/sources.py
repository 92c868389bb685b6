"""Raw texts out of one file of each format, in bounded memory. Broken pieces are counted, not raised."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ptbr_slm.data.drops import DropCounts
from ptbr_slm.errors import missing_extra, os_errors

MAX_DOCUMENT_BYTES = 8 << 20
"""The largest document held in memory. The complete Bible is half of it."""

_ROWS = 256
_BOM = b"\xef\xbb\xbf"


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
        yield data.removeprefix(_BOM).decode("utf-8"), source
    except UnicodeDecodeError:
        drops.drop("binary" if b"\x00" in data else "not_utf8", source)


def _json_lines(path: Path, drops: DropCounts) -> Iterator[tuple[str, str]]:
    """The `text` of every line; blank lines mean nothing."""
    with _decompressed(path) as (stream, raw):
        number, before = 0, 0
        while True:
            with os_errors(path):
                try:
                    line, whole = _bounded_line(stream)
                except _BROKEN:  # gzip's error is an OSError too
                    drops.drop("corrupt_file", f"{path}:{number + 1}")
                    return
            if not line:
                return
            number += 1
            drops.input_bytes += raw.tell() - before
            before = raw.tell()
            source = f"{path}:{number}"
            if not whole:
                drops.drop("too_long", source)
            elif line.strip():
                yield from _json_text(line.removeprefix(_BOM) if number == 1 else line, source, drops)


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


def _bounded_line(stream: BinaryIO) -> tuple[bytes, bool]:
    """(line, True), or (its beginning, False) for one above `MAX_DOCUMENT_BYTES`, whose rest is skipped."""
    line = stream.readline(MAX_DOCUMENT_BYTES + 1)
    if len(line) <= MAX_DOCUMENT_BYTES or line.endswith(b"\n"):
        return line, True
    while (rest := stream.readline(1 << 20)) and not rest.endswith(b"\n"):
        pass
    return line[:1], False


class _Broken(Exception):
    """A zstandard stream that does not decompress."""


_BROKEN = (_Broken, zlib.error, gzip.BadGzipFile, EOFError)


@contextmanager
def _decompressed(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """(lines, file on disk) of a .jsonl, .jsonl.gz or .jsonl.zst."""
    with os_errors(path):
        raw = path.open("rb")
    with raw:
        if path.suffix.lower() == ".gz":
            with gzip.GzipFile(fileobj=raw) as unzipped:
                yield unzipped, raw  # type: ignore[misc]
        elif path.suffix.lower() == ".zst":
            with io.BufferedReader(_ZstdStream(raw), 1 << 20) as unzipped:
                yield unzipped, raw
        else:
            yield raw, raw


class _ZstdStream(io.RawIOBase):
    """A .zst file as a raw stream; its library's error becomes `_Broken`, a cut file too."""

    def __init__(self, raw: BinaryIO) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise missing_extra("zstandard") from error
        self._error = zstandard.ZstdError
        # 128 MiB is the largest window that `zstd --long=27` makes: a hostile header cannot ask for more
        self._stream: Any = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
            raw, read_across_frames=True, closefd=False
        )

    def readable(self) -> bool:
        """Always: it is an input."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Decompress into `buffer`; 0 at the end."""
        try:
            return int(self._stream.readinto(buffer))
        except self._error as error:
            raise _Broken(str(error)) from error


def _parquet(path: Path, drops: DropCounts) -> Iterator[tuple[str, str]]:
    """The `text` column, a batch of rows at a time."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra("pyarrow") from error
    with os_errors(path):
        raw = path.open("rb")
    size, row = path.stat().st_size, 0
    try:
        with raw, parquet.ParquetFile(raw, pre_buffer=False) as file:
            rows = file.metadata.num_rows
            if "text" not in file.schema_arrow.names:
                drops.drop("no_text", str(path), rows)
                drops.input_bytes += size
                return
            for batch in file.iter_batches(batch_size=_ROWS, columns=["text"]):
                for value in batch.column(0):
                    row += 1
                    yield from _cell(value.as_py(), f"{path}:{row}", drops)
                drops.input_bytes += size * batch.num_rows // max(rows, 1)
    except (pa.ArrowException, UnicodeDecodeError, OSError):
        drops.drop("corrupt_file", f"{path}:{row + 1}")


def _cell(value: object, source: str, drops: DropCounts) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield from _checked(value, source, drops)
    else:
        drops.drop("no_text", source)
