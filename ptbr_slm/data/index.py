"""index.json: what the prepared data are, with the size and sha256 of every file, and two sums of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.atomic import write_json
from ptbr_slm.version import __version__

NAME = "index.json"
SCHEMA = 1
KIND = "prepared-data"
SplitName = Literal["train", "valid"]
SPLITS: tuple[SplitName, ...] = ("train", "valid")
CONTENT = ("dtype", "vocab_size", "tokenizer_sha256", "bos_id", "eos_id", "splits")
"""The keys that make the identity of the data: the same tokens in the same order have the same `sha256`."""
PREPARE_AGAIN = "Prepare de novo com:  ptbr-slm data prepare TEXTOS -o PASTA --tokenizer tokenizer.json"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of the folder."""

    file: str
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True, slots=True)
class ShardEntry(FileEntry):
    """A shard of token ids."""

    tokens: int


@dataclass(frozen=True, slots=True)
class SplitEntry:
    """A split: its counts and its files."""

    tokens: int
    documents: int
    bytes: int
    words: int
    offsets: FileEntry
    shards: tuple[ShardEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """What index.json says, without its schema, kind and sums."""

    ptbr_slm: str = __version__
    """The version that made the data."""
    dtype: str
    """`uint16` or `uint32`."""
    vocab_size: int
    tokenizer_sha256: str
    bos_id: int | None
    """None where the tokenizer has no token that begins a text."""
    eos_id: int
    normalization: str = ""
    """How texts were cleaned."""
    valid_fraction: float = 0.0
    """Share of the text that was asked for validation."""
    paragraph_documents: bool = False
    seed: int = 0
    near_duplicates: Mapping[str, str | int | float] = field(default_factory=dict)
    """How near copies were found: method, hash, normalisation, thresholds. Empty where they were not."""
    splits: Mapping[SplitName, SplitEntry]
    dropped: Mapping[str, int] = field(default_factory=dict)
    repaired: Mapping[str, int] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Sources, licences, near copies, the files of the records; empty (and not written) for plain inputs."""

    @property
    def record_files(self) -> tuple[FileEntry, ...]:
        """The files of the records (`data.records`); none where the data have no records.

        Raises KeyError, TypeError or ValueError for an index that does not describe them.
        """
        return tuple(FileEntry(*_file(entry)) for entry in self.recipe.get("records", []))

    @property
    def sha256(self) -> str:
        """Identity of the data: same tokens, same order, same tokenizer."""
        return _identity(asdict(self))


def write_index(folder: Path, index: Index) -> None:
    """Write `index` with its schema, kind, identity (`sha256`) and checksum (`index_sha256`) added."""
    body = asdict(index)
    if not index.recipe:
        del body["recipe"]
    write_json(folder / NAME, with_sums(body))


def with_sums(body: dict[str, Any]) -> dict[str, Any]:
    """`body` as the file has it: with schema, kind, identity and checksum."""
    full = {"schema": SCHEMA, "kind": KIND, **body, "sha256": _identity(body)}
    return {**full, "index_sha256": _digest(full)}


def read_index(path: Path) -> Index:
    """The index at `path`, checked against its own sums. Raises E_NOT_FOUND, E_DATA_CORRUPT or E_SCHEMA."""
    with os_errors(path):
        raw = path.read_bytes()
    try:
        body = json.loads(raw)
        schema = body["schema"]
        if body["kind"] != KIND or not isinstance(schema, int):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise corrupt("o índice dos dados está quebrado.", path) from error
    if schema > SCHEMA:
        raise SlmError(
            "E_SCHEMA",
            f"dados feitos por uma versão mais nova do ptbr-slm (schema {schema} > {SCHEMA}).",
            where=path,
            hint="Atualize com:  pip install -U ptbr-slm",
        )
    if body.pop("index_sha256", None) != _digest(body):
        raise corrupt("o índice dos dados foi alterado (a soma não confere).", path)
    try:
        return _parsed(body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise corrupt("o índice dos dados está incompleto.", path) from error


def corrupt(message: str, where: Path | str) -> SlmError:
    """E_DATA_CORRUPT with the usual advice."""
    return SlmError("E_DATA_CORRUPT", message, where=where, hint=PREPARE_AGAIN)


def _parsed(body: dict[str, Any]) -> Index:
    """Raises KeyError, TypeError, ValueError or AttributeError for what is no index."""
    if body["dtype"] not in ("uint16", "uint32"):
        raise ValueError(f"dtype {body['dtype']}")
    found = Index(
        ptbr_slm=str(body.get("ptbr_slm", "")),
        dtype=body["dtype"],
        vocab_size=_integer(body, "vocab_size"),
        tokenizer_sha256=str(body["tokenizer_sha256"]),
        bos_id=None if body["bos_id"] is None else _integer(body, "bos_id"),
        eos_id=_integer(body, "eos_id"),
        normalization=str(body.get("normalization", "")),
        valid_fraction=float(body.get("valid_fraction", 0.0)),
        paragraph_documents=bool(body.get("paragraph_documents", False)),
        seed=int(body.get("seed", 0)),
        near_duplicates=dict(body.get("near_duplicates", {})),
        splits={name: _split(body["splits"][name]) for name in SPLITS},
        dropped={str(reason): int(count) for reason, count in body.get("dropped", {}).items()},
        repaired={str(kind): int(count) for kind, count in body.get("repaired", {}).items()},
        recipe=dict(body.get("recipe", {})),
    )
    _ = found.record_files  # raises where they are not described as files are
    return found


def _split(body: dict[str, Any]) -> SplitEntry:
    return SplitEntry(
        tokens=_integer(body, "tokens"),
        documents=_integer(body, "documents"),
        bytes=_integer(body, "bytes"),
        words=_integer(body, "words"),
        offsets=FileEntry(*_file(body["offsets"])),
        shards=tuple(ShardEntry(*_file(shard), tokens=_integer(shard, "tokens")) for shard in body["shards"]),
    )


def _file(body: dict[str, Any]) -> tuple[str, int, str]:
    name = body["file"]
    if not isinstance(name, str):
        raise TypeError(f"file {name!r}")
    return name, _integer(body, "size"), str(body["sha256"])


def _integer(body: dict[str, Any], key: str) -> int:
    value = body[key]
    if type(value) is not int:
        raise TypeError(f"{key}: {value!r}")
    return value


def _identity(body: dict[str, Any]) -> str:
    return _digest({key: body[key] for key in CONTENT})


def _digest(value: dict[str, Any]) -> str:
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
