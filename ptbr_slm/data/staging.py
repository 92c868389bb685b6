"""The working folder of `prepare`: all documents as tokens in input order, and how far the reading is.

The text of a document is what its tokens decode to, or lies beside them where a tokenizer does not spell it
as it is.

Every file is only appended to, but for one with the paragraphs that were seen (`repeated_paragraphs`), which
each checkpoint has anew. A checkpoint says how long each was when the documents up to some point of the
input were in it; after a `kill -9` the files are cut to these lengths and the reading goes on there, so that
the result has the same bytes. The splits are written from here when all documents are known.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from ptbr_slm.data.document import DocumentCounts
from ptbr_slm.data.encode import Encoder
from ptbr_slm.data.process import Kept
from ptbr_slm.errors import os_errors
from ptbr_slm.storage.atomic import write_json
from ptbr_slm.storage.lock import Lock, try_lock

DOCUMENT = np.dtype(
    [
        ("end", "<u8"),
        ("bytes", "<u4"),
        ("words", "<u4"),
        ("identity", "<u8"),
        ("key", "<f8"),
        ("source", "<u4"),
    ]
)
"""A document: where its tokens end, its sizes, fingerprint and split key, and its source's number."""
UNSPELLED = np.dtype([("number", "<u8"), ("end", "<u8")])
"""A document whose tokens do not spell its text: its number, and where its text ends in the file `texts`."""
_FILES = ("tokens", "documents", "records", "copies", "unspelled", "texts")
PART_DOCUMENTS = 8_192
"""Documents that are read at once."""
READ_BYTES = 1 << 20
"""Bytes of tokens that are read at once."""
StagedRecord = dict[str, Any]
"""A `records.Record` as a dictionary, with the document's `number` where it is staged."""


@dataclass(slots=True)
class Checkpoint:
    """How far the work is."""

    file: int = 0
    """The file that the next document is in, of the list of all files."""
    item: int = 0
    """How many of its documents come before."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of each file of the folder."""
    signatures: int = 0
    """Documents with a MinHash signature."""
    counts: dict[str, Any] = field(default_factory=dict)
    """`DocumentCounts`."""
    limits: dict[str, Any] = field(default_factory=dict)
    """`WrongInputLimits`."""


class Staging:
    """The folder, open. A context manager: an error before the first checkpoint leaves no folder behind."""

    def __init__(self, folder: Path, dtype: np.dtype[Any]) -> None:
        self.folder, self.dtype = folder, dtype
        self.near_folder = folder / "near"
        self.checkpoint = Checkpoint()
        self.tokens = 0
        self.documents = 0
        self._stack = ExitStack()
        self._files: dict[str, BinaryIO] = {}
        self._reader: BinaryIO

    @classmethod
    def open(cls, beside: Path, identity: str, dtype: np.dtype[Any]) -> Staging:
        """The folder for the output `beside` and work of this identity; another identity's is deleted.

        Where another process is at the same work, the folder has a name of its own.
        """
        prefix = f".{beside.name}.preparing-"
        folder = beside.parent / f"{prefix}{identity[:16]}"
        for other in beside.parent.glob(f"{prefix}*"):
            if other != folder and _is_free(other):
                shutil.rmtree(other, ignore_errors=True)
        if folder.exists() and not _is_free(folder):
            folder = beside.parent / f"{prefix}{identity[:16]}-{os.getpid()}"
        return cls(folder, dtype)

    def __enter__(self) -> Self:
        with os_errors(self.folder.parent):
            self.folder.mkdir(exist_ok=True)
            lock = self._stack.enter_context((self.folder / "lock").open("ab"))
            try_lock(lock.fileno())
            self._read_checkpoint()
            for name in _FILES:
                path = self.folder / name
                file = self._stack.enter_context(path.open("ab"))
                file.truncate(self.checkpoint.sizes.get(name, 0))
                self._files[name] = file
            self._reader = self._stack.enter_context((self.folder / "tokens").open("rb", READ_BYTES))
        self.documents = self.checkpoint.sizes.get("documents", 0) // DOCUMENT.itemsize
        self.tokens = self.checkpoint.sizes.get("tokens", 0) // self.dtype.itemsize
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stack.close()
        except OSError:
            if error is None:
                raise
        if error is None or not self.checkpoint.sizes:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def resumed(self) -> bool:
        """Whether an earlier process left a part of the work."""
        return bool(self.checkpoint.sizes)

    def add(self, kept: Kept, source: int) -> None:
        """Append a document."""
        self._files["tokens"].write(kept.tokens.astype(self.dtype, copy=False).tobytes())
        self.tokens += len(kept.tokens)
        entry = np.array(
            [(self.tokens, kept.bytes, kept.words, kept.identity, kept.key, source)], dtype=DOCUMENT
        )
        self._files["documents"].write(entry.tobytes())
        if kept.text:
            self._files["texts"].write(kept.text.encode("utf-8", "surrogatepass"))
            end = self._files["texts"].tell()
            self._files["unspelled"].write(np.array([(self.documents, end)], dtype=UNSPELLED).tobytes())
        self.documents += 1

    def add_copy(self, identity: int) -> None:
        """Remember that a document of this fingerprint came again."""
        self._files["copies"].write(identity.to_bytes(8, "little"))

    def record(self, record: StagedRecord) -> None:
        """Append what was decided about a document."""
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        self._files["records"].write(line.encode("utf-8", "backslashreplace") + b"\n")

    def paragraphs_file(self, file: int, item: int) -> Path:
        """Where the paragraphs that were seen up to this point of the input are; absent where none are."""
        return self.folder / f"paragraphs-{file}-{item}"

    def save(
        self, file: int, item: int, signatures: int, counts: DocumentCounts, limits: dict[str, Any]
    ) -> None:
        """Write a checkpoint: everything up to this point of the input is in the files."""
        earlier = self.paragraphs_file(self.checkpoint.file, self.checkpoint.item)
        paragraphs = self.paragraphs_file(file, item)
        self.flush()
        for opened in self._files.values():
            os.fsync(opened.fileno())
        sizes = {name: opened.tell() for name, opened in self._files.items()}
        if paragraphs.exists():
            sizes[paragraphs.name] = paragraphs.stat().st_size
        self.checkpoint = Checkpoint(file, item, sizes, signatures, counts.state(), limits)
        write_json(self.folder / "checkpoint.json", asdict(self.checkpoint))
        if earlier != paragraphs:
            earlier.unlink(missing_ok=True)

    def flush(self) -> None:
        """Everything added can be read."""
        for opened in self._files.values():
            opened.flush()

    def all_documents(self) -> npt.NDArray[Any]:
        """(documents,) of `DOCUMENT`."""
        self.flush()
        return np.fromfile(self.folder / "documents", dtype=DOCUMENT)

    def column(self, name: str) -> npt.NDArray[Any]:
        """(documents,) one field of `DOCUMENT`."""
        values = np.empty(self.documents, DOCUMENT[name])
        for first, part in self.document_parts():
            values[first : first + len(part)] = part[name]
        return values

    def document_parts(self) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """(number of the first, documents as `DOCUMENT`): all of them, `PART_DOCUMENTS` at a time."""
        self.flush()
        with (self.folder / "documents").open("rb") as file:
            for first in range(0, self.documents, PART_DOCUMENTS):
                yield first, np.fromfile(file, DOCUMENT, PART_DOCUMENTS)

    def all_copies(self) -> npt.NDArray[np.uint64]:
        """Fingerprints of the exact copies that were left out."""
        self.flush()
        return np.fromfile(self.folder / "copies", dtype="<u8")

    def read_tokens(self, start: int, stop: int) -> npt.NDArray[Any]:
        """(stop - start,) tokens. They are read: pages of a mapped file would count as resident memory."""
        self._files["tokens"].flush()
        self._reader.seek(start * self.dtype.itemsize)
        return np.frombuffer(self._reader.read((stop - start) * self.dtype.itemsize), self.dtype)

    def texts(self, encoder: Encoder) -> Callable[[int], str]:
        """A function from a document's number to its text, of the documents that are here now."""
        self.flush()
        ends = self.column("end")
        unspelled = np.fromfile(self.folder / "unspelled", dtype=UNSPELLED)
        path = self.folder / "texts"

        def text_of(number: int) -> str:
            at = int(np.searchsorted(unspelled["number"], number))
            if at < len(unspelled) and unspelled["number"][at] == number:
                start = int(unspelled["end"][at - 1]) if at else 0
                with path.open("rb") as file:
                    file.seek(start)
                    return file.read(int(unspelled["end"][at]) - start).decode("utf-8", "surrogatepass")
            return encoder.text_of(
                self.read_tokens(int(ends[number - 1]) if number else 0, int(ends[number]))
            )

        return text_of

    def all_records(self) -> Iterator[StagedRecord]:
        """Every record, in order."""
        self.flush()
        with (self.folder / "records").open("rb") as file:
            for line in file:
                yield json.loads(line)

    def _read_checkpoint(self) -> None:
        try:
            body = json.loads((self.folder / "checkpoint.json").read_bytes())
            found = Checkpoint(**body)
            whole = all((self.folder / name).stat().st_size >= size for name, size in found.sizes.items())
        except (OSError, ValueError, TypeError):
            return
        if whole:
            self.checkpoint = found


def _is_free(folder: Path) -> bool:
    """Whether no process works in the folder."""
    try:
        with (folder / "lock").open("ab") as file:
            return try_lock(file.fileno()) is not Lock.BUSY
    except OSError:
        return True
