"""A .jsonl, .jsonl.gz or .jsonl.zst as a stream of bytes; what cannot be decompressed raises after the rest.

Python's gzip reports a truncated file; python-zstandard's `stream_reader` takes it for a whole one (its
documentation: end of input is end of stream). Here frames are decompressed one by one, so that a cut frame
and bytes that belong to no frame are seen, and everything before them is still delivered.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ptbr_slm.errors import missing_extra, os_errors


class CorruptStream(Exception):
    """A zstandard stream that does not decompress."""


CORRUPT = (CorruptStream, zlib.error, gzip.BadGzipFile, EOFError)
"""What reading a corrupt archive raises."""

_CHUNK = 512
"""Compressed bytes decompressed at once. A block of 128 KiB may take 4 bytes: at most 16 MiB come out."""
_MAX_WINDOW = 1 << 27
"""The largest window that `zstd --long=27` makes: a malicious header cannot ask for more memory."""


@contextmanager
def decompressed(path: Path) -> Iterator[tuple[io.BufferedReader, io.BufferedReader]]:
    """(bytes, file on disk). Raises E_NOT_FOUND, E_PERMISSION, E_IO or E_DEPENDENCY."""
    with os_errors(path):
        raw = path.open("rb")
    with raw:
        name = path.name.lower()
        if name.endswith(".gz"):
            with gzip.GzipFile(fileobj=raw) as unzipped, _buffered(unzipped.read1) as stream:
                yield stream, raw
        elif name.endswith(".zst"):
            with _buffered(_Zstd(raw).read) as stream:
                yield stream, raw
        else:
            yield raw, raw


def _buffered(read: Callable[[int], bytes]) -> io.BufferedReader:
    return io.BufferedReader(_Stream(read), 1 << 20)


class _Stream(io.RawIOBase):
    """`read` as a raw stream. An error is first the end of the stream, and raised by the reading after it.

    So a line that ends where the good bytes end comes out whole.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._error: Exception | None = None

    def readable(self) -> bool:
        """Always: it is an input."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` or a part of it; 0 at the end."""
        if self._error is not None:
            raise self._error
        try:
            data = self._read(len(buffer))
        except CORRUPT as error:
            self._error = error
            return 0
        buffer[: len(data)] = data
        return len(data)


class _Zstd:
    """A .zst file, all its frames; its library's error becomes `CorruptStream`, a cut file too."""

    def __init__(self, raw: io.BufferedReader) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise missing_extra("zstandard") from error
        self._error = zstandard.ZstdError
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        self._raw = raw
        self._frame: Any = None
        self._compressed = b""
        self._out = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end. Raises CorruptStream once all before it is delivered."""
        while not self._out:
            if not self._compressed:
                self._compressed = self._raw.read(_CHUNK)
            if not self._compressed:
                if self._frame is not None:
                    raise CorruptStream("the last frame is cut")
                return b""
            self._decompress()
        part, self._out = self._out[:size], self._out[size:]
        return bytes(part)

    def _decompress(self) -> None:
        if self._frame is None:
            self._frame = self._decompressor.decompressobj(write_size=1 << 16)
        try:
            self._out = memoryview(self._frame.decompress(self._compressed))
        except self._error as error:
            raise CorruptStream(str(error)) from error
        self._compressed = b""
        if self._frame.eof:
            self._compressed, self._frame = self._frame.unused_data, None
