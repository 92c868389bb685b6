"""Writes one split of the prepared data: token shards and document offsets, hashed as they go."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ptbr_slm.data.index import FileEntry, ShardEntry, SplitEntry, SplitName
from ptbr_slm.errors import SlmError

SHARD_TOKENS = 50_000_000
"""Tokens in a shard: 100 MB in uint16. A shard ends at the first document boundary after it."""


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Little-endian uint16 up to 65,536 ids, uint32 above."""
    return np.dtype("<u2") if vocab_size <= 65_536 else np.dtype("<u4")


class HashedFile:
    """A file written front to back whose size and sha256 are known at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = path.open("wb")
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, array: npt.NDArray[Any]) -> None:
        """Append an array's bytes. (`ndarray.tofile` would hide the errno of a full disk.)"""
        data = array.tobytes()
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)

    def close(self) -> FileEntry:
        """Close, and describe the file for the index."""
        self._file.close()
        return FileEntry(self.path.name, self._size, self._digest.hexdigest())


class SplitWriter:
    """`NAME-00000.bin`, `NAME-00001.bin`, ...; `NAME.offsets` (int64: document starts, then the end)."""

    def __init__(self, folder: Path, name: SplitName, vocab_size: int, shard_tokens: int) -> None:
        self.folder, self.name, self.vocab_size, self.shard_tokens = folder, name, vocab_size, shard_tokens
        self.dtype = token_dtype(vocab_size)
        self.tokens = self.documents = self.bytes = self.words = 0
        self._shards: list[ShardEntry] = []
        self._shard: HashedFile | None = None
        self._shard_start = 0
        self._offsets = HashedFile(folder / f"{name}.offsets")

    def write(self, tokens: npt.NDArray[Any], *, text_bytes: int, words: int) -> None:
        """Append one document, its bos and eos included. Raises E_TOKENIZER_INVALID for a wrong id."""
        if int(tokens.max()) >= self.vocab_size:
            raise SlmError(
                "E_TOKENIZER_INVALID",
                f"o tokenizador deu o token {int(tokens.max())}, e diz ter {self.vocab_size}.",
                hint="Use um tokenizador cujos ids não tenham buracos.",
            )
        if self._shard is None:
            self._shard = HashedFile(self.folder / f"{self.name}-{len(self._shards):05d}.bin")
            self._shard_start = self.tokens
        self._offsets.write(np.array([self.tokens], dtype="<i8"))
        self._shard.write(tokens.astype(self.dtype, copy=False))
        self.tokens += len(tokens)
        self.documents += 1
        self.bytes += text_bytes
        self.words += words
        if self.tokens - self._shard_start >= self.shard_tokens:
            self._close_shard()

    def finish(self) -> SplitEntry:
        """Close the files and describe the split for the index."""
        self._close_shard()
        self._offsets.write(np.array([self.tokens], dtype="<i8"))
        return SplitEntry(
            tokens=self.tokens,
            documents=self.documents,
            bytes=self.bytes,
            words=self.words,
            offsets=self._offsets.close(),
            shards=tuple(self._shards),
        )

    def _close_shard(self) -> None:
        if self._shard is not None:
            file = self._shard.close()
            self._shards.append(
                ShardEntry(file.file, file.size, file.sha256, tokens=self.tokens - self._shard_start)
            )
            self._shard = None

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what an error left open; after `finish` nothing is. An error in closing is not raised."""
        for file in (self._shard, self._offsets):
            if file is not None:
                with suppress(OSError):
                    file.close()
