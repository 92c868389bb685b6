"""Prepared data, opened: memory-mapped token shards that were checked against their index.

    index.json  tokenizer.json  train-00000.bin ...  train.offsets  valid-00000.bin ...  valid.offsets

A document is stored as `<|bos|> text <|eos|>`, ids in little-endian uint16 (uint32 above 65,536 ids).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ptbr_slm.data.index import (
    NAME,
    PREPARE_AGAIN,
    SPLITS,
    FileEntry,
    Index,
    SplitEntry,
    SplitName,
    corrupt,
    read_index,
)
from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.manifest import sha256_file
from ptbr_slm.text import quoted
from ptbr_slm.tokenizer import Tokenizer

_CHECK_TOKENS = 1 << 20


class Split:
    """One part of the data, `train` or `valid`: documents end to end as one long sequence of token ids."""

    def __init__(self, folder: Path, entry: SplitEntry, dtype: np.dtype[Any], vocab_size: int) -> None:
        self.tokens = entry.tokens
        """Token ids in all, bos and eos of every document included."""
        self.documents = entry.documents
        self.bytes = entry.bytes
        """UTF-8 bytes of the texts: the divisor of bits per byte."""
        self.words = entry.words
        """Pieces between white space."""
        self._folder, self._entry, self._dtype, self._vocab_size = folder, entry, dtype, vocab_size
        self._starts = np.cumsum([0] + [shard.tokens for shard in entry.shards])

    @cached_property
    def _maps(self) -> list[npt.NDArray[Any]]:
        return [self._map(shard, self._dtype) for shard in self._entry.shards]

    def read(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """(stop - start,) ids at positions start..stop. Raises E_DATA_CORRUPT for an id that is too large."""
        if not 0 <= start <= stop <= self.tokens:
            raise IndexError(f"tokens {start}..{stop} of {self.tokens}")
        out = np.empty(stop - start, dtype=np.int64)
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        done = 0
        while done < len(out):
            low = start + done - int(self._starts[first])
            piece = self._maps[first][low : low + len(out) - done]
            out[done : done + len(piece)] = piece
            self._check_ids(piece, first, low)
            done += len(piece)
            first += 1
        return out

    def document_offsets(self) -> npt.NDArray[np.int64]:
        """(documents + 1,) where each document begins in the split, then where the last one ends."""
        return self._offsets

    def document_ids(self, starts: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int32]:
        """(B, length) number of the document, from 0, that each token of the windows at `starts` (B,) is in.

        A document's bos and eos are its own. Raises IndexError for a window that leaves the split, and
        E_DATA_CORRUPT for offsets that do not end where the tokens end.
        """
        starts = np.asarray(starts, dtype=np.int64)
        ids = np.zeros((len(starts), length), dtype=np.int32)  # (B, T)
        if ids.size == 0:
            return ids
        if starts.min() < 0 or starts.max() + length > self.tokens:
            raise IndexError(f"windows {starts.min()}..{starts.max() + length} of {self.tokens} tokens")
        offsets = self._offsets
        first = np.searchsorted(offsets, starts, side="right") - 1  # (B,)
        last = np.searchsorted(offsets, starts + length - 1, side="right") - 1  # (B,)
        # The documents that begin inside a window, all windows end to end: their window and their column.
        begun = last - first  # (B,)
        window = np.repeat(np.arange(len(starts)), begun)
        document = np.arange(len(window)) + np.repeat(last + 1 - np.cumsum(begun), begun)
        ids[:, 0] = first
        np.add.at(ids, (window, offsets[document] - starts[window]), 1)
        return np.cumsum(ids, axis=1, out=ids)

    @cached_property
    def _offsets(self) -> npt.NDArray[np.int64]:
        entry = self._entry.offsets
        offsets = self._map(entry, np.dtype("<i8"))
        if offsets[0] != 0 or offsets[-1] != self.tokens:
            raise corrupt("as posições dos documentos diferem dos tokens.", self._folder / entry.file)
        return offsets

    def check(self, *, hashes: bool) -> None:
        """Refuse missing, truncated or altered files and ids out of the vocabulary. Raises E_DATA_CORRUPT."""
        if sum(shard.tokens for shard in self._entry.shards) != self.tokens:
            raise corrupt("a soma dos tokens dos arquivos difere da do índice.", self._folder)
        if self._entry.offsets.size != 8 * (self.documents + 1):
            raise corrupt("o número de documentos difere do índice.", self._folder)
        for file in (*self._entry.shards, self._entry.offsets):
            _check_file(self._folder, file, hashes)
        for number, shard in enumerate(self._entry.shards):
            if shard.size != shard.tokens * self._dtype.itemsize:
                raise corrupt(f"{shard.file} não tem os {shard.tokens} tokens do índice.", self._folder)
            for low in range(0, shard.tokens if hashes else 0, _CHECK_TOKENS):
                self._check_ids(self._maps[number][low : low + _CHECK_TOKENS], number, low)

    def _check_ids(self, ids: npt.NDArray[Any], shard: int, low: int) -> None:
        if len(ids) and int(ids.max()) >= self._vocab_size:
            at = int(np.argmax(ids >= self._vocab_size))
            raise corrupt(
                f"token {int(ids[at])} fora do vocabulário de {self._vocab_size}, na posição {low + at}.",
                self._folder / self._entry.shards[shard].file,
            )

    def _map(self, entry: FileEntry, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        path = self._folder / entry.file
        with os_errors(path):
            return np.memmap(path, dtype=dtype, mode="r")


def _check_file(folder: Path, entry: FileEntry, hashes: bool) -> None:
    """Compare a file with its entry. Raises E_DATA_CORRUPT."""
    path = folder / entry.file
    if path.parent != folder or not path.is_file():
        raise corrupt(f"falta o arquivo {entry.file}.", path)
    size = path.stat().st_size
    if size != entry.size:
        raise corrupt(f"{path.name} tem {size} bytes; o índice diz {entry.size}.", path)
    if hashes and sha256_file(path) != entry.sha256:
        raise corrupt(f"{path.name} está corrompido (o sha256 não confere).", path)


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """Counts of one split."""

    documents: int
    bytes: int
    """UTF-8 bytes of the texts."""
    words: int
    tokens: int
    """bos and eos of every document included."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What `data stats` and `data prepare` report, under the keys of their `--json`."""

    folder: str
    documents: int
    bytes: int
    words: int
    tokens: int
    """bos and eos of every document included; not so in the two ratios."""
    tokens_per_word: float
    bytes_per_token: float
    splits: dict[SplitName, SplitSummary]
    valid_fraction: float
    """The share of the text that was asked for validation."""
    valid_share: float
    """The share that it has."""
    vocab_size: int
    tokenizer_sha256: str
    sha256: str
    dropped: dict[str, int]
    """Reason -> documents; a key of `document.REASONS`."""
    repaired: dict[str, int]
    """Kind -> documents; a key of `document.REPAIRS`."""
    varieties: dict[str, dict[str, int]]
    """`br`, `pt`, `unknown` -> documents `kept` and `dropped`; empty where no source asks for a variety."""
    excessive_rules: list[dict[str, Any]]
    """Rules that took over 20 % of a source: `source`, `reason`, `dropped` (documents) and `share`."""


def is_prepared(path: Path) -> bool:
    """Whether `path` names prepared data, intact or not: the folder, its index.json or a .bin file."""
    return path.suffix == ".bin" or path.name == NAME or (path / NAME).is_file()


class PreparedData:
    """A prepared folder that agreed with its index."""

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder = folder
        self.index = index
        self.tokenizer_sha256 = index.tokenizer_sha256
        self.vocab_size = index.vocab_size
        self.sha256 = index.sha256
        """Identity of the data: same tokens, same order, same tokenizer."""
        dtype = np.dtype(index.dtype).newbyteorder("<")
        self._splits = {name: Split(folder, index.splits[name], dtype, self.vocab_size) for name in SPLITS}

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> PreparedData:
        """Open a prepared folder, its index.json, or one of its .bin files.

        verify: read every file once, comparing its sha256 and, of shards, the ids; otherwise only sizes are
        compared.
        Raises E_NOT_FOUND, E_DATA_CORRUPT, E_SCHEMA, E_TOKENIZER_MISSING or E_TOKENIZER_MISMATCH.
        """
        folder = path if path.is_dir() else path.parent
        if not path.exists() or not (folder / NAME).is_file():
            what = (
                "não há dados preparados aqui (falta index.json)."
                if path.exists()
                else "os dados não existem."
            )
            raise SlmError("E_NOT_FOUND", what, where=path, hint=PREPARE_AGAIN)
        data = cls(folder, read_index(folder / NAME))
        for name in SPLITS:
            data.split(name).check(hashes=verify)
        data.check_records(hashes=verify)
        data.load_tokenizer()
        return data

    def check_records(self, *, hashes: bool) -> None:
        """Refuse missing, truncated or altered files of records (`data.records`). Raises E_DATA_CORRUPT."""
        for entry in self.index.record_files:
            _check_file(self.folder, entry, hashes)

    def split(self, name: SplitName) -> Split:
        """`train` or `valid`; valid is empty where there was only one document."""
        return self._splits[name]

    def document_ids(
        self, split: SplitName, starts: npt.NDArray[np.int64], length: int
    ) -> npt.NDArray[np.int32]:
        """(B, length) document numbers of the windows at `starts` (B,): see `Split.document_ids`."""
        return self.split(split).document_ids(starts, length)

    def summary(self) -> Summary:
        """Documents, bytes, words, tokens and drops, in all and for each split."""
        splits = {
            name: SplitSummary(split.documents, split.bytes, split.words, split.tokens)
            for name, split in self._splits.items()
        }
        documents = sum(split.documents for split in splits.values())
        size = sum(split.bytes for split in splits.values())
        words = sum(split.words for split in splits.values())
        tokens = sum(split.tokens for split in splits.values())
        added = 1 if self.index.bos_id is None else 2
        text_tokens = tokens - added * documents
        return Summary(
            folder=str(self.folder),
            documents=documents,
            bytes=size,
            words=words,
            tokens=tokens,
            tokens_per_word=round(text_tokens / max(words, 1), 4),
            bytes_per_token=round(size / max(text_tokens, 1), 4),
            splits=splits,
            valid_fraction=self.index.valid_fraction,
            valid_share=round(splits["valid"].bytes / max(size, 1), 6),
            vocab_size=self.vocab_size,
            tokenizer_sha256=self.tokenizer_sha256,
            sha256=self.sha256,
            dropped=dict(self.index.dropped),
            repaired=dict(self.index.repaired),
            varieties=dict(self.index.recipe.get("varieties", {})),
            excessive_rules=list(self.index.recipe.get("excessive_rules", [])),
        )

    def provenance(self) -> dict[str, Any]:
        """What a model that was trained on these data says of them: identity, counts, sources and licences.

        documents, bytes (UTF-8) and tokens are those of the part to train on; licences: documents by licence,
        as far as the texts told it.
        """
        train, recipe = self.split("train"), self.index.recipe
        told = ("name", "licence", "documents", "hub")
        sources = [
            {key: source[key] for key in told if source.get(key)} for source in recipe.get("sources", [])
        ]
        licences = dict(recipe.get("licences", {}))
        return {
            "name": self.folder.name,
            "sha256": self.sha256,
            "documents": train.documents,
            "bytes": train.bytes,
            "tokens": train.tokens,
            **({"licences": licences} if licences else {}),
            **({"sources": sources} if sources else {}),
        }

    def load_tokenizer(self) -> Tokenizer:
        """The folder's copy of the tokenizer. Raises E_TOKENIZER_MISMATCH if it was swapped."""
        tokenizer = Tokenizer.load(self.folder / "tokenizer.json")
        self.check_tokenizer(tokenizer, self.folder / "tokenizer.json")
        return tokenizer

    def check_tokenizer(self, tokenizer: Tokenizer, where: Path | str) -> None:
        """Refuse a tokenizer that did not make these data. Raises E_TOKENIZER_MISMATCH."""
        if tokenizer.sha256 != self.tokenizer_sha256:
            raise SlmError(
                "E_TOKENIZER_MISMATCH",
                f"este tokenizador não é o dos dados ({tokenizer.vocab_size} tokens; os dados usam um de "
                f"{self.vocab_size}, sha256 {self.tokenizer_sha256[:12]}).",
                where=where,
                hint=f"Use --tokenizer {quoted(self.folder / 'tokenizer.json')}, "
                "ou prepare os dados com o seu.",
            )
