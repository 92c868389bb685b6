"""Documents on disk between two steps of the pipeline: written once in order, read as often as needed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, cast

from ptbr_slm.data.document import Document


class DocumentStore:
    """Cleaned and tagged documents in one file, a JSON line each, compressed where zstandard is installed.

    A working file of one run: its format is no promise. `close` it before reading.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.length = 0
        """Documents in it."""
        self._file = _open(path, "wb")

    def add(self, document: Document) -> None:
        """Append a document; its number is the earlier `length`."""
        fields = [document.text, document.source, document.id, document.licence, dict(document.attributes)]
        line = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
        # A source may be a name of a file that is not UTF-8 (PEP 383)
        self._file.write(line.encode("utf-8", "surrogatepass") + b"\n")
        self.length += 1

    def close(self) -> None:
        """End the file."""
        self._file.close()

    def __iter__(self) -> Iterator[Document]:
        """Every document, in order. Memory holds one."""
        with closing(_open(self.path, "rb")) as file:
            for line in file:
                text, source, identifier, licence, attributes = json.loads(
                    line.decode("utf-8", "surrogatepass")
                )
                yield Document(text, source, identifier, licence, attributes)


def _open(path: Path, mode: str) -> BinaryIO:
    try:
        import zstandard
    except ImportError:
        return cast(BinaryIO, path.open(mode))
    if mode == "wb":
        return cast(BinaryIO, zstandard.open(path, mode, cctx=zstandard.ZstdCompressor(level=1)))
    return cast(BinaryIO, io.BufferedReader(zstandard.open(path, mode), 1 << 20))
