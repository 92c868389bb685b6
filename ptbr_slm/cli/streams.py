"""The three standard streams, made safe: one may be closed, full, or left by its reader.

A write that fails never raises. Whoever wrote goes on, and the first failure is kept: `undelivered` turns
that of standard output into the exit code at the end. Standard error is a log, and its loss has no cost.

A closed descriptor (`>&-`, `2>&-`, `<&-`) is opened on the null device. Otherwise the next file that the
process opens takes its number, and whatever a C library writes to standard error ends up in that file.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
import unicodedata
from typing import TYPE_CHECKING, BinaryIO, Protocol, TextIO, cast

from ptbr_slm.errors import Exit, SlmError

if TYPE_CHECKING:
    from typing_extensions import Buffer  # collections.abc.Buffer from Python 3.12 on


class _Raw(Protocol):
    """What is needed of the stream below: `io.FileIO`, or a console of Windows."""

    def write(self, data: memoryview, /) -> int | None: ...
    def fileno(self) -> int: ...
    def isatty(self) -> bool: ...


class OutputLost(Exception):
    """Standard output cannot be written, and it was all that the verb had to do: it may end."""


class SafeRaw(io.RawIOBase):
    """A raw stream whose writes never raise `OSError`: what cannot be written is dropped."""

    def __init__(self, raw: _Raw, refused: OSError | None = None) -> None:
        super().__init__()
        self._raw, self._refused = raw, refused
        self.failure: OSError | None = None
        """The first failure; None while all was written."""

    def write(self, data: Buffer, /) -> int:
        """Write `data`, or drop what cannot be written. Returns its length in bytes."""
        with memoryview(data) as view:
            length = view.nbytes
            try:
                if self._refused is not None:
                    raise self._refused
                done = 0
                while done < length:
                    written = self._raw.write(view[done:])
                    if written is None:  # a non-blocking pipe is full: its reader may still come
                        select.select([], [self._raw.fileno()], [])
                    done += written or 0
            except OSError as error:
                self.failure = self.failure or error
        return length

    def fileno(self) -> int:
        """The descriptor."""
        return self._raw.fileno()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._raw.isatty()

    def writable(self) -> bool:
        """Always."""
        return True


def make_streams_safe() -> None:
    """Replace `sys.stdin` where it is closed, and `sys.stdout` and `sys.stderr` always. Once a process."""
    closed = [number for number in range(3) if not _is_open(number)]
    for number in closed:
        _open_null(number)
    sys.stdout = _safe(sys.stdout, 1, 1 in closed)
    sys.stderr = _safe(sys.stderr, 2, 2 in closed)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115


def stdout_failure() -> OSError | None:
    """Why something written to standard output did not arrive; None where all did."""
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return None  # a notebook's or a test's own stream
    raw = _raw(sys.stdout)
    return raw.failure if isinstance(raw, SafeRaw) else None


def undelivered() -> SlmError | Exit | None:
    """What to end with where a command's output did not arrive: an error to print, or a silent code for a
    reader that had enough (`| head`). None where all arrived.
    """
    sys.stdout.flush()
    failure = stdout_failure()
    if failure is None:
        return None
    if failure.errno == errno.EPIPE or (os.name == "nt" and failure.errno == errno.EINVAL):
        return Exit.PIPE
    full = failure.errno in (errno.ENOSPC, errno.EDQUOT)
    return SlmError(
        "E_DISK_FULL" if full else "E_OUTPUT",
        f"a saída padrão não pôde ser escrita ({failure.strerror}); o que vai para arquivos foi gravado.",
        where="saída padrão",
        hint="Repita com a saída num disco com espaço, ou com  > /dev/null  se ela não interessa.",
    )


NEAREST = "ptbr_slm.nearest"
"""The error handler of stdout and stderr."""


_PLAIN = {
    **dict.fromkeys("—–·−", "-"), **dict.fromkeys("“”«»", '"'), **dict.fromkeys("‘’", "'"),
    **dict(zip("▁▂▃▄▅▆▇█", "12345678", strict=True)), "→": "->", "×": "x", "≥": ">=", "≤": "<=", "⏎": "/",
}  # fmt: skip
"""Signs that we print -> what stands for them in ASCII."""


def _nearest(error: UnicodeError) -> tuple[str | bytes, int]:
    """The bytes of a file's name that is not UTF-8, as `ls` prints them; "a" for "ã"; "?" where nothing is
    near.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    first = error.object[error.start]
    if "\udc80" <= first <= "\udcff":
        return os.fsencode(first), error.start + 1
    letters = unicodedata.normalize("NFKD", first).encode("ascii", "ignore").decode("ascii")
    return _PLAIN.get(first) or letters or "?", error.start + 1


def write_anything() -> None:
    """Print names of files as their bytes, and without its accent what the encoding lacks.

    A console of LANG=C or cp1252 does not end a command at an accent.
    """
    codecs.register_error(NEAREST, _nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=NEAREST)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _open_null(number: int) -> None:
    """Put the null device on this descriptor, for our children too."""
    null = os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
    if null == number:
        os.set_inheritable(number, True)
    else:
        os.dup2(null, number)
        os.close(null)


def _safe(stream: TextIO | None, number: int, closed: bool) -> TextIO:
    """The stream, with its raw stream made safe; a notebook's or a test's own stream as it is."""
    if stream is None:
        raw: _Raw = io.FileIO(number, "w", closefd=False)
        encoding, errors, lines, through = "utf-8", "replace", number == 2, False
    elif type(stream) is io.TextIOWrapper:
        raw = _raw(stream)
        if isinstance(raw, SafeRaw):
            return stream
        encoding, errors = stream.encoding, stream.errors or "replace"
        lines, through = stream.line_buffering, stream.write_through
    else:
        return stream
    safe = SafeRaw(raw, OSError(errno.EBADF, os.strerror(errno.EBADF)) if closed else None)
    buffer = cast(BinaryIO, safe if through else io.BufferedWriter(safe))
    return io.TextIOWrapper(buffer, encoding, errors, line_buffering=lines, write_through=through)


def _raw(stream: io.TextIOWrapper) -> _Raw:
    """The raw stream; with `python -u` the buffer is the raw stream itself."""
    buffer = stream.buffer
    return buffer.raw if isinstance(buffer, io.BufferedWriter) else cast(_Raw, buffer)
