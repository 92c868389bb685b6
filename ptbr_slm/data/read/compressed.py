"""Compressed files as streams of bytes; what cannot be decompressed raises after all the bytes before it.

Python's gzip reports a truncated file. python-zstandard's `stream_reader` takes one for a whole file (its
documentation: end of input is end of stream), and `bz2.BZ2File` and `lzma.LZMAFile` pass over bytes that
follow the last stream. Here frames of these three are decompressed one by one, so that a cut frame and bytes
that belong to no frame are seen.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Protocol

from ptbr_slm.errors import missing_extra


class CorruptStream(Exception):
    """A stream that does not decompress."""


class DecompressionBomb(CorruptStream):
    """A stream that grows by more than any text does."""


CORRUPT = (CorruptStream, zlib.error, gzip.BadGzipFile, lzma.LZMAError, EOFError)
"""What reading a corrupt archive raises."""

COMPRESSIONS = {
    ".gz": "gz",
    ".tgz": "gz",
    ".zst": "zst",
    ".bz2": "bz2",
    ".tbz2": "bz2",
    ".xz": "xz",
    ".txz": "xz",
}
"""Ending of a file's name -> how it is compressed."""
MAGIC = {b"\x1f\x8b": "gz", b"\x28\xb5\x2f\xfd": "zst", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
"""First bytes of a compressed stream whose name does not say it."""

MAX_EXPANSION = 200
"""Times that a file may grow. Portuguese text grows 3 to 5 times, a log 20, and zeros in a .gz 1,030."""
ALWAYS_ALLOWED = 256 << 20
"""Bytes that come out of any file, whatever its size."""
_CHUNK = 512
"""Compressed bytes decompressed at once. A zstandard block of 128 KiB may take 4 bytes: at most 16 MiB come
out; of bzip2 23 MB."""
_MAX_WINDOW = 1 << 27
"""The largest window that `zstd --long=27` makes: a malicious header cannot ask for more memory."""
_LZMA_MEMORY = 256 << 20
"""Enough for `xz -9`, whose dictionary is 64 MiB."""


class Expansion:
    """Compares what comes out of a file with what went in."""

    def __init__(self, compressed: Callable[[], int]) -> None:
        """compressed: the number of bytes read so far, or the size of the file."""
        self._compressed = compressed
        self._out = 0

    def add(self, size: int) -> None:
        """`size` more bytes came out. Raises DecompressionBomb."""
        self._out += size
        if self._out > ALWAYS_ALLOWED and self._out > MAX_EXPANSION * self._compressed():
            raise DecompressionBomb(f"{self._out} bytes")


def compression_of(name: str) -> str | None:
    """How a file of this name is compressed."""
    return next((kind for ending, kind in COMPRESSIONS.items() if name.lower().endswith(ending)), None)


@contextmanager
def decompressed(
    raw: io.BufferedReader, compression: str | None, expansion: Expansion
) -> Iterator[io.BufferedReader]:
    """The bytes of `raw` (a file, a member of an archive), decompressed. Raises E_DEPENDENCY: zstandard."""
    if compression is None:
        yield raw
    elif compression == "gz":
        with gzip.GzipFile(fileobj=raw) as unzipped, buffered(unzipped.read1, expansion) as stream:
            yield stream
    else:
        with buffered(_Frames(raw, compression).read, expansion) as stream:
            yield stream


def buffered(read: Callable[[int], bytes], expansion: Expansion | None = None) -> io.BufferedReader:
    """`read` as a file."""
    return io.BufferedReader(_Stream(read, expansion), 1 << 20)


class _Stream(io.RawIOBase):
    """`read` as a raw stream. An error is first the end of the stream, and raised by the reading after it.

    So a line that ends where the good bytes end comes out whole.
    """

    def __init__(self, read: Callable[[int], bytes], expansion: Expansion | None) -> None:
        self._read, self._expansion = read, expansion
        self._error: Exception | None = None

    def readable(self) -> bool:
        """Always: it is an input."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` or a part of it; 0 at the end."""
        if self._error is not None:
            raise self._error
        try:
            data = self._read(len(buffer))
            if self._expansion is not None:
                self._expansion.add(len(data))
        except CORRUPT as error:
            self._error = error
            return 0
        buffer[: len(data)] = data
        return len(data)


class _Decompressor(Protocol):
    """What bz2, lzma and zstandard have in common: one frame, then `unused_data`."""

    @property
    def eof(self) -> bool:
        """Whether the frame has ended."""

    @property
    def unused_data(self) -> bytes:
        """What follows the frame."""

    def decompress(self, data: bytes, /) -> bytes:
        """What comes out of `data`."""


class _Frames:
    """A .zst, .bz2 or .xz file, all its frames; a library's error becomes `CorruptStream`, a cut file too."""

    def __init__(self, raw: BinaryIO, compression: str) -> None:
        self._new, self._errors = _FRAMES[compression]()
        self._raw = raw
        self._frame: _Decompressor | None = None
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
        frame = self._frame = self._frame or self._new()
        try:
            self._out = memoryview(frame.decompress(self._compressed))
        except self._errors as error:
            raise CorruptStream(str(error)) from error
        self._compressed = b""
        if frame.eof:
            self._compressed, self._frame = frame.unused_data, None


_Made = tuple[Callable[[], _Decompressor], tuple[type[Exception], ...]]
"""A new decompressor, and what it raises for bytes that are not of its format."""


def _zstandard() -> _Made:
    try:
        import zstandard
    except ImportError as error:
        raise missing_extra("zstandard") from error
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    return lambda: decompressor.decompressobj(write_size=1 << 16), (zstandard.ZstdError,)


_FRAMES: dict[str, Callable[[], _Made]] = {
    "zst": _zstandard,
    "bz2": lambda: (bz2.BZ2Decompressor, (OSError, ValueError)),
    "xz": lambda: (lambda: lzma.LZMADecompressor(memlimit=_LZMA_MEMORY), (lzma.LZMAError,)),
}
