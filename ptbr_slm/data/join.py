"""Prepared folders, made apart, as one: shards stay as they are, offsets and counts are joined."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ptbr_slm.data import index
from ptbr_slm.data.index import FileEntry, Index, ShardEntry, SplitEntry, SplitName
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.records import GROUPS, has_records, records_file
from ptbr_slm.data.select import describe_counts, describe_excessive
from ptbr_slm.data.shards import HashedFile
from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.atomic import atomic_folder, may_replace
from ptbr_slm.storage.manifest import sha256_file

_OFFSETS = 1 << 20
"""Offsets moved at once."""


def join(parts: Sequence[Path], out: Path) -> PreparedData:
    """Make the prepared folder `out` of prepared folders: the documents of the first, then of the second, ...

    A shard becomes a hard link where the file system has them, else a copy. Counts are summed; what the parts
    do not agree on (the seed, the fraction for validation) is left out of the index. Records are joined where
    every part has them. Copies of a document in two parts are not looked for, nor near copies on two sides of
    the split. Every shard is read once, to compare its sha256.
    Raises E_USAGE without parts, E_TOKENIZER_MISMATCH for parts of different tokenizers, E_EXISTS where `out`
    is something else, E_DISK_FULL, E_PERMISSION, and what `PreparedData.open` raises.
    """
    if not parts:
        raise SlmError(
            "E_USAGE",
            "falta dizer que dados preparados juntar.",
            where="PARTES",
            hint="Dê as pastas na ordem em que os documentos devem ficar.",
        )
    if not may_replace(out, index.KIND):
        raise SlmError(
            "E_EXISTS",
            "o destino já existe e não é uma pasta de dados preparados: não vou substituí-lo.",
            where=out,
            hint="Escolha outra pasta para o resultado.",
        )
    opened = [PreparedData.open(part, verify=False) for part in parts]
    for other in opened[1:]:
        _check_same_tokenizer(opened[0], other)
    with os_errors(out), atomic_folder(out) as folder:
        shutil.copyfile(opened[0].folder / "tokenizer.json", folder / "tokenizer.json")
        splits = {name: _join_split(name, opened, folder) for name in index.SPLITS}
        records = _join_records(opened, folder)
        index.write_index(folder, _join_index([data.index for data in opened], splits, records))
    return PreparedData.open(out)


def _check_same_tokenizer(first: PreparedData, other: PreparedData) -> None:
    if _tokenizer_of(first.index) != _tokenizer_of(other.index):
        raise SlmError(
            "E_TOKENIZER_MISMATCH",
            f"estes dados foram preparados com outro tokenizador que os de {first.folder}.",
            where=other.folder,
            hint="Prepare todas as partes com o mesmo tokenizer.json.",
        )


def _tokenizer_of(described: Index) -> tuple[object, ...]:
    """What the token ids depend on."""
    return (
        described.tokenizer_sha256,
        described.vocab_size,
        described.dtype,
        described.bos_id,
        described.eos_id,
    )


def _join_split(name: SplitName, parts: Sequence[PreparedData], folder: Path) -> SplitEntry:
    """The shards of all parts under consecutive names, and offsets that count from the first of them."""
    entries = [part.index.splits[name] for part in parts]
    shards: list[ShardEntry] = []
    for part, entry in zip(parts, entries, strict=True):
        for shard in entry.shards:
            joined = replace(shard, file=f"{name}-{len(shards):05d}.bin")
            _link(part.folder / shard.file, folder / joined.file)
            shards.append(joined)
    offsets = HashedFile(folder / f"{name}.offsets")
    before = 0
    for part, entry in zip(parts, entries, strict=True):
        own = part.split(name).document_offsets()
        for start in range(0, entry.documents, _OFFSETS):
            offsets.write(own[start : min(start + _OFFSETS, entry.documents)] + before)
        before += entry.tokens
    offsets.write(np.array([before], dtype="<i8"))
    return SplitEntry(
        tokens=before,
        documents=sum(entry.documents for entry in entries),
        bytes=sum(entry.bytes for entry in entries),
        words=sum(entry.words for entry in entries),
        offsets=offsets.close(),
        shards=tuple(shards),
    )


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without hard links
        shutil.copyfile(source, target)


def _join_records(parts: Sequence[PreparedData], folder: Path) -> list[FileEntry]:
    """The records of all parts; none where a part has none. Gzip members end to end are a gzip file."""
    if not all(has_records(part.folder) for part in parts):
        return []
    joined = []
    for group in GROUPS:
        path = records_file(folder, group)
        with path.open("wb") as out:
            for part in parts:
                with records_file(part.folder, group).open("rb") as source:
                    shutil.copyfileobj(source, out)
        joined.append(FileEntry(path.name, path.stat().st_size, sha256_file(path)))
    return joined


def _join_index(
    parts: Sequence[Index], splits: Mapping[SplitName, SplitEntry], records: Sequence[FileEntry]
) -> Index:
    first = parts[0]
    dropped, repaired = Counter[str](), Counter[str]()
    for part in parts:
        dropped.update(part.dropped)
        repaired.update(part.repaired)
    recipe = _join_recipes(parts)
    if records:
        recipe["records"] = [asdict(entry) for entry in records]
    nothing = Index(
        dtype=first.dtype,
        vocab_size=first.vocab_size,
        tokenizer_sha256=first.tokenizer_sha256,
        bos_id=first.bos_id,
        eos_id=first.eos_id,
        splits=splits,
        dropped=dict(dropped),
        repaired=dict(repaired),
        recipe=recipe,
    )
    if len({_settings(part) for part in parts}) > 1:
        return nothing
    return replace(
        nothing,
        normalization=first.normalization,
        valid_fraction=first.valid_fraction,
        paragraph_documents=first.paragraph_documents,
        seed=first.seed,
        near_duplicates=_join_near_duplicates([part.near_duplicates for part in parts]),
    )


def _settings(part: Index) -> tuple[object, ...]:
    """What decided which documents are in which split."""
    near = frozenset((key, value) for key, value in part.near_duplicates.items() if key != "found")
    return part.normalization, part.valid_fraction, part.paragraph_documents, part.seed, near


def _join_near_duplicates(parts: Sequence[Mapping[str, str | int | float]]) -> dict[str, str | int | float]:
    """The settings, which are the same, and the sum of what was found."""
    if not parts[0]:
        return {}
    return {**parts[0], "found": sum(int(part.get("found", 0)) for part in parts)}


def _join_recipes(parts: Sequence[Index]) -> dict[str, Any]:
    """All counts summed; sources that differ in more than counts stay apart."""
    licences: Counter[str] = Counter()
    varieties: dict[str, Counter[str]] = {}
    sources: dict[str, dict[str, Any]] = {}
    for index_of_part in parts:
        part = index_of_part.recipe
        documents = sum(split.documents for split in index_of_part.splits.values())
        unknown = sum(source["documents"] for source in part["sources"]) if "sources" in part else documents
        licences.update(part.get("licences", {"": unknown}))
        for code, outcomes in part.get("varieties", {}).items():
            varieties.setdefault(code, Counter()).update(outcomes)
        for source in part.get("sources", []):
            settings = {key: value for key, value in source.items() if key not in ("documents", "dropped")}
            joined = sources.setdefault(
                json.dumps(settings, sort_keys=True), {**settings, "documents": 0, "dropped": Counter()}
            )
            joined["documents"] += source["documents"]
            joined["dropped"].update(source["dropped"])
    result = describe_counts(licences, varieties)
    if sources:
        result["sources"] = [
            {**source, "dropped": dict(sorted(source["dropped"].items()))} for source in sources.values()
        ]
        result |= describe_excessive(result["sources"])
    return result
