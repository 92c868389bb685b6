"""Examples on disk: ids and target marks end to end, memory-mapped, in files that an index describes.

    index.json  tokens.bin  targets.bin  offsets.bin  train.items  valid.items

`tokens.bin` holds the ids of all examples (little-endian uint16, or uint32 above 65,536 ids), `targets.bin`
one bit for each of them (the least significant first), `offsets.bin` where each example begins and the last
one ends (int64), and `SPLIT.items` the numbers of a split's items (uint32). An item is an example, or a pair
of examples that stand one after the other. Nothing about an example depends on the ones around it.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ptbr_slm.data.index import NAME, SPLITS, FileEntry, SplitName
from ptbr_slm.data.shards import HashedFile, token_dtype
from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.atomic import write_json
from ptbr_slm.storage.manifest import sha256_file
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.tune.examples import Example
from ptbr_slm.version import __version__

SCHEMA = 1
_FILES = ("tokens.bin", "targets.bin", "offsets.bin")
_BUFFER = 1 << 20
"""Tokens written at once, and checked at once."""
_CONTENT = ("kind", "dtype", "vocab_size", "tokenizer_sha256", "template_sha256", "loss", "store", "splits")
"""What makes the identity of the data: the same examples in the same order have the same `sha256`."""
_AGAIN = "Apague esta pasta: ela é refeita quando o comando é repetido."


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """A split's items and counts."""

    items: int
    tokens: int
    """Ids of all its examples."""
    target_tokens: int
    """Of these, those that are learnt."""
    target_bytes: int
    """UTF-8 bytes of the text of those."""
    file: FileEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreIndex:
    """What index.json says, without its schema and sums."""

    ptbr_slm: str = __version__
    kind: str
    dtype: str
    vocab_size: int
    tokenizer_sha256: str
    template_sha256: str
    loss: str
    seq_len: int
    """The examples fit into sequences of this many positions."""
    store: tuple[FileEntry, ...]
    splits: Mapping[SplitName, SplitFacts]
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Reason -> rows of the input."""
    skipped_examples: Mapping[str, list[str]] = field(default_factory=dict)
    """Reason -> where the first of them are."""
    shortened: int = 0
    """Conversations that have lost their oldest turns."""
    first: str = ""
    """Where the first example comes from."""

    @property
    def sha256(self) -> str:
        """Identity of the data: the same examples in the same order, for the same tokenizer and template."""
        body = asdict(self)
        return _digest({key: body[key] for key in _CONTENT})


class StoreWriter:
    """Writes the examples of items as they come, and at the end which item is in which split."""

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        self._folder, self._tokenizer, self._vocab_size = folder, tokenizer, tokenizer.vocab_size
        self.dtype = token_dtype(tokenizer.vocab_size)
        with os_errors(folder):
            self._tokens, self._targets, self._offsets = (HashedFile(folder / name) for name in _FILES)
        self._ids: list[npt.NDArray[np.int64]] = []
        self._marks: list[npt.NDArray[np.bool_]] = []
        self._pending = self._written = 0
        self._ends = array("q", [0])
        self._item_facts = (array("q"), array("q"), array("q"))

    @property
    def items(self) -> int:
        """Items so far."""
        return len(self._item_facts[0])

    @property
    def tokens(self) -> int:
        """Ids so far."""
        return self._written + self._pending

    @property
    def item_tokens(self) -> npt.NDArray[np.int64]:
        """(items,) ids of each item."""
        return np.frombuffer(self._item_facts[0], np.int64)

    def add(self, *examples: Example) -> None:
        """Append the examples of one item. Raises E_TOKENIZER_INVALID for an id out of the vocabulary."""
        facts = [0, 0, 0]
        for example in examples:
            most = int(example.ids.max())
            if most >= self._vocab_size:
                raise SlmError(
                    "E_TOKENIZER_INVALID",
                    f"o tokenizador deu o token {most}, e diz ter {self._vocab_size}.",
                    hint="Use um tokenizador cujos ids não tenham buracos.",
                )
            self._ids.append(example.ids)
            self._marks.append(example.target)
            self._pending += len(example.ids)
            self._ends.append(self.tokens)
            size = self._tokenizer.target_bytes(example.ids)[example.target[1:]].sum()
            counts = len(example.ids), example.targets, int(size)
            facts = [a + b for a, b in zip(facts, counts, strict=True)]
        for values, value in zip(self._item_facts, facts, strict=True):
            values.append(value)
        if self._pending >= _BUFFER:
            self._write(last=False)

    def finish(
        self, held_out: npt.NDArray[np.bool_]
    ) -> tuple[tuple[FileEntry, ...], dict[SplitName, SplitFacts]]:
        """Close the files: (those of the examples, the splits). held_out: (items,) of the validation part."""
        self._write(last=True)
        self._offsets.write(np.frombuffer(self._ends, np.int64).astype("<i8"))
        store = tuple(file.close() for file in (self._tokens, self._targets, self._offsets))
        splits = {}
        for name in SPLITS:
            chosen = held_out if name == "valid" else ~held_out
            file = HashedFile(self._folder / f"{name}.items")
            file.write(np.flatnonzero(chosen).astype("<u4"))
            tokens, targets, size = (
                int(np.frombuffer(values, np.int64)[chosen].sum()) for values in self._item_facts
            )
            splits[name] = SplitFacts(int(chosen.sum()), tokens, targets, size, file.close())
        return store, splits

    def _write(self, *, last: bool) -> None:
        """Write what waits; up to seven tokens stay, whose marks do not fill a byte."""
        if not self._ids:
            return
        ids, marks = np.concatenate(self._ids), np.concatenate(self._marks)
        whole = len(ids) if last else len(ids) // 8 * 8
        self._tokens.write(ids[:whole].astype(self.dtype))
        self._targets.write(np.packbits(marks[:whole], bitorder="little"))
        self._written += whole
        self._ids, self._marks, self._pending = [ids[whole:]], [marks[whole:]], len(ids) - whole

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        """Close what an error left open."""
        for file in (self._tokens, self._targets, self._offsets):
            with suppress(OSError):
                file.close()


class StoreReader:
    """The examples of a folder whose files agree with its index."""

    def __init__(self, folder: Path, index: StoreIndex) -> None:
        self.folder, self.index = folder, index
        self._dtype = np.dtype(index.dtype).newbyteorder("<")

    def example(self, number: int) -> Example:
        """Example `number` of the store. Raises E_DATA_CORRUPT for an id that is not in the vocabulary."""
        start, stop = int(self.offsets[number]), int(self.offsets[number + 1])
        ids = self._tokens[start:stop].astype(np.int64)
        if len(ids) and int(ids.max()) >= self.index.vocab_size:
            raise _corrupt(f"token {int(ids.max())} fora do vocabulário.", self.folder / _FILES[0])
        marks = np.unpackbits(self._targets[start // 8 : (stop + 7) // 8], bitorder="little")
        return Example(ids, marks[start % 8 : start % 8 + len(ids)].astype(bool))

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """(examples + 1,) where each example begins, then where the last one ends."""
        return self._map(_FILES[2], np.dtype("<i8"))

    def items(self, split: SplitName) -> npt.NDArray[np.uint32]:
        """(items,) numbers of the items of a split."""
        if not self.index.splits[split].items:
            return np.empty(0, np.uint32)  # an empty file cannot be mapped
        return self._map(self.index.splits[split].file.file, np.dtype("<u4"))

    @cached_property
    def _tokens(self) -> npt.NDArray[Any]:
        return self._map(_FILES[0], self._dtype)

    @cached_property
    def _targets(self) -> npt.NDArray[Any]:
        return self._map(_FILES[1], np.dtype("u1"))

    def _map(self, name: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        path = self.folder / name
        with os_errors(path):
            return np.memmap(path, dtype=dtype, mode="r")

    def check(self, *, hashes: bool) -> None:
        """Refuse missing, truncated or altered files. Raises E_DATA_CORRUPT."""
        index = self.index
        for entry in (*index.store, *(index.splits[name].file for name in SPLITS)):
            path = self.folder / entry.file
            if path.parent != self.folder or not path.is_file():
                raise _corrupt(f"falta o arquivo {entry.file}.", path)
            if path.stat().st_size != entry.size:
                raise _corrupt(f"{path.name} não tem os {entry.size} bytes do índice.", path)
            if hashes and sha256_file(path) != entry.sha256:
                raise _corrupt(f"{path.name} está corrompido (o sha256 não confere).", path)
        tokens = index.store[0].size // self._dtype.itemsize
        if tokens != sum(facts.tokens for facts in index.splits.values()) or tokens != int(self.offsets[-1]):
            raise _corrupt("os tokens diferem dos do índice.", self.folder)


def write_index(folder: Path, index: StoreIndex) -> None:
    """Write index.json, with its schema, identity (`sha256`) and checksum (`index_sha256`) added."""
    body = {"schema": SCHEMA, **asdict(index), "sha256": index.sha256}
    write_json(folder / NAME, {**body, "index_sha256": _digest(body)})


def open_store(path: Path, kind: str, *, verify: bool) -> StoreReader:
    """The store in the folder `path`. verify: compare the sha256 of every file, not only their sizes.

    Raises E_NOT_FOUND, E_SCHEMA or E_DATA_CORRUPT.
    """
    if not (path / NAME).is_file():
        raise SlmError(
            "E_NOT_FOUND",
            "não há conversas preparadas aqui (falta index.json).",
            where=path,
            hint="Confira o caminho (ls) e repita o comando.",
        )
    store = StoreReader(path, _read_index(path / NAME, kind))
    store.check(hashes=verify)
    return store


def _read_index(path: Path, kind: str) -> StoreIndex:
    with os_errors(path):
        raw = path.read_bytes()
    try:
        body = json.loads(raw)
        schema = body.pop("schema")
        if body["kind"] != kind or not isinstance(schema, int):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _corrupt("o índice está quebrado ou é de outros dados.", path) from error
    if schema > SCHEMA:
        raise SlmError(
            "E_SCHEMA",
            f"dados feitos por uma versão mais nova do ptbr-slm (schema {schema} > {SCHEMA}).",
            where=path,
            hint="Atualize com:  pip install -U ptbr-slm",
        )
    checksum = body.pop("index_sha256", None)
    if checksum != _digest({"schema": schema, **body}):
        raise _corrupt("o índice foi alterado (a soma não confere).", path)
    try:
        del body["sha256"]
        splits = {
            name: SplitFacts(**{**facts, "file": FileEntry(**facts["file"])})
            for name, facts in body.pop("splits").items()
        }
        store = tuple(FileEntry(**entry) for entry in body.pop("store"))
        if set(splits) != set(SPLITS) or tuple(entry.file for entry in store) != _FILES:
            raise ValueError
        return StoreIndex(**body, store=store, splits=splits)
    except (KeyError, TypeError, ValueError) as error:
        raise _corrupt("o índice está incompleto.", path) from error


def _corrupt(message: str, where: Path) -> SlmError:
    return SlmError("E_DATA_CORRUPT", message, where=where, hint=_AGAIN)


def _digest(value: dict[str, Any]) -> str:
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
