"""Which of the staged documents the data hold, how often, and in which split; and writing them.

Here all documents are known: near copies are found, weights applied, the validation part chosen.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ptbr_slm.data import index
from ptbr_slm.data.document import DocumentCounts
from ptbr_slm.data.duplicates.clusters import Clusters, ShingleStore, find_clusters, repeats
from ptbr_slm.data.duplicates.exact import copies_of, key_of
from ptbr_slm.data.duplicates.signatures import SignatureIndex
from ptbr_slm.data.encode import Encoder
from ptbr_slm.data.hold_out import choose_hold_out, cut_point
from ptbr_slm.data.index import FileEntry, SplitEntry, SplitName
from ptbr_slm.data.recipe import Recipe
from ptbr_slm.data.records import Record, RecordWriter
from ptbr_slm.data.shards import SplitWriter
from ptbr_slm.data.stages.rules import excessive_rules
from ptbr_slm.data.staging import StagedRecord, Staging
from ptbr_slm.tokenizer import Tokenizer

Halves = tuple[str, str]


@dataclass(slots=True)
class Selection:
    """What becomes of each staged document."""

    assigned: list[tuple[SplitName, int]]
    """(split, number of a document), in the order of writing."""
    copies: npt.NDArray[np.int32]
    """(documents,) how often each is in its split; 0 where it is left out."""
    cut: dict[int, Halves]
    """Documents whose end is held out: (training part, validation part)."""
    clusters: Clusters | None
    cluster_sizes: npt.NDArray[np.uint32]
    """(documents,) how many documents of the input each is, exact and near copies counted; 0 for a copy."""
    near_duplicates: dict[str, str | int | float]
    """What the index says of near copies."""


def select(
    staging: Staging,
    recipe: Recipe,
    signatures: SignatureIndex | None,
    tokenizer: Tokenizer,
    valid_fraction: float,
    counts: DocumentCounts,
) -> Selection:
    """Choose; what is left out, or cut, is counted. The answer depends on the documents and their order."""
    documents = staging.all_documents()
    text_of = staging.texts(Encoder(tokenizer))
    weights = np.array([source.weight for source in recipe.sources])[documents["source"]]
    keys = documents["key"].copy()
    cluster_sizes = copies_of(array("Q", documents["identity"]), array("Q", staging.all_copies()))
    clusters, described, dropped = None, {}, np.empty(0, np.uint32)
    if signatures is not None:
        clusters = _near_copies(staging, len(documents), signatures, text_of)
        cluster_sizes = clusters.sizes(cluster_sizes)
        together, identities = clusters.group_identities(documents["identity"])
        keys[together] = [key_of(identity) for identity in identities.tolist()]
        if recipe.drop_near_duplicates:
            dropped = clusters.members[clusters.members != clusters.kept]
        described = {
            **signatures.settings.description(),
            "found": clusters.copies,
            "dropped": recipe.drop_near_duplicates,
        }
    if recipe.repeat_copies:
        weights = weights * np.array([repeats(size) for size in cluster_sizes.tolist()])
    copies = _copies(weights, documents["identity"])
    reasons = dict.fromkeys(np.flatnonzero(copies == 0).tolist(), "not_sampled")
    reasons |= dict.fromkeys(dropped.tolist(), "near_duplicate")
    copies[dropped] = 0
    choice = choose_hold_out(keys, np.where(copies > 0, documents["bytes"], 0), valid_fraction)
    numbers = np.flatnonzero(copies).tolist()
    cut: dict[int, Halves] = {}
    if choice.cut is not None:
        for number in np.flatnonzero((keys == choice.cut) & (copies > 0)).tolist():
            text = text_of(number)
            at = cut_point(text, choice.cut_bytes)
            if at is not None:
                cut[number] = text[:at].rstrip(), text[at:].strip("\n")
    if reasons or cut:
        for record in staging.all_records():
            number = record.get("number", -1)
            if number in reasons:
                counts.drop(reasons[number], record["source"])
            elif number in cut:
                counts.repair("end_held_out", record["source"])
    assigned = [(choice.split_of(float(keys[number])), number) for number in numbers]
    return Selection(assigned, copies, cut, clusters, cluster_sizes, described)


def _copies(weights: npt.NDArray[np.float64], identities: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
    """Whole copies by weight, and one more for the share of the documents that its fraction says."""
    whole = np.floor(weights)
    more = identities / 2.0**64 < weights - whole
    return (whole + more).astype(np.int32)


def _near_copies(
    staging: Staging, documents: int, signatures: SignatureIndex, text_of: Callable[[int], str]
) -> Clusters:
    """The clusters of near copies among so many documents."""
    with signatures:
        pairs = signatures.candidate_pairs()
    with ShingleStore(staging.near_folder, pairs, signatures.settings) as store:
        for number in store.wanted.tolist():
            store.add(number, text_of(number))
        return find_clusters(pairs, store, documents)


def write_splits(
    staging: Staging, selection: Selection, folder: Path, tokenizer: Tokenizer, shard_tokens: int
) -> dict[SplitName, SplitEntry]:
    """Write the shards of both splits; the further copies of a document come after all documents."""
    documents, tokens = staging.all_documents(), staging.all_tokens()
    encoder = Encoder(tokenizer)
    with ExitStack() as stack:
        writers: dict[SplitName, SplitWriter] = {
            name: stack.enter_context(SplitWriter(folder, name, tokenizer.vocab_size, shard_tokens))
            for name in index.SPLITS
        }
        for split, number in _in_order(selection):
            if number in selection.cut:
                halves = selection.cut[number]
                for name, text, encoded in zip(index.SPLITS, halves, encoder.encode(halves), strict=True):
                    writers[name].write(encoded, text_bytes=len(text.encode()), words=len(text.split()))
                continue
            document = documents[number]
            writers[split].write(
                _tokens_of(tokens, documents, number),
                text_bytes=int(document["bytes"]),
                words=int(document["words"]),
            )
        return {name: writer.finish() for name, writer in writers.items()}


def _in_order(selection: Selection) -> Iterator[tuple[SplitName, int]]:
    """(split, document) as written; a document that is cut is there once, and in both splits."""
    for assigned in _passes(selection):
        yield from assigned


def _passes(selection: Selection) -> Iterator[list[tuple[SplitName, int]]]:
    """All documents, then the second copies, then the third ones."""
    yield selection.assigned
    for earlier in range(1, int(selection.copies.max(initial=1))):
        yield [
            (split, number)
            for split, number in selection.assigned
            if split == "train" and number not in selection.cut and selection.copies[number] > earlier
        ]


def describe(staging: Staging, selection: Selection, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """What index.json says of the recipe; with the records in `folder` where they are wanted.

    Empty for plain inputs without licences, none from the hub, of which no rule took too much.
    """
    told: dict[str, Any] = {}
    licences: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    dropped: dict[str, Counter[str]] = {source.name: Counter() for source in recipe.sources}
    varieties: dict[str, Counter[str]] = {}
    for record in staging.all_records():
        reason = _reason(record, selection)
        variety = record.get("attributes", {}).get("variety")
        if variety is not None:
            varieties.setdefault(variety, Counter())["dropped" if reason else "kept"] += 1
        if reason:
            dropped[record["origin"]][reason] += 1
        else:
            kept[record["origin"]] += 1
            licences[record["licence"]] += 1
    if set(licences) - {""}:
        told["licences"] = dict(sorted(licences.items()))
    if varieties:
        told["varieties"] = {
            code: {"kept": varieties[code]["kept"], "dropped": varieties[code]["dropped"]}
            for code in sorted(varieties)
        }
    excessive = [
        {"source": name, **rule._asdict(), "share": round(rule.share, 4)}
        for name, reasons in dropped.items()
        for rule in excessive_rules(reasons, kept[name] + reasons.total())
    ]
    if excessive:
        told["excessive_rules"] = excessive
    if recipe.keep_records or any(source.hub for source in recipe.sources):
        told["sources"] = [
            {
                "name": source.name,
                "preset": source.stages.name,
                "stages": [stage.name for stage in source.stages.all],
                "weight": source.weight,
                "licence": source.licence,
                "documents": kept[source.name],
                "dropped": dict(sorted(dropped[source.name].items())),
                **({"hub": [asdict(pin) for pin in source.hub]} if source.hub else {}),
            }
            for source in recipe.sources
        ]
    if recipe.keep_records:
        told["records"] = [asdict(entry) for entry in _write_records(staging, selection, folder)]
    return told


def _reason(record: StagedRecord, selection: Selection) -> str:
    """Why a document is left out; empty for one that is in a split."""
    number = record.get("number")
    if number is None:
        return str(record["reason"])
    if selection.copies[number]:
        return ""
    clusters = selection.clusters
    return "near_duplicate" if clusters and clusters.original_of(number) != number else "not_sampled"


def _write_records(staging: Staging, selection: Selection, folder: Path) -> tuple[FileEntry, ...]:
    """The records of each split in the order of its documents, and of what was dropped."""
    with RecordWriter(folder) as writer:
        for record in staging.all_records():
            reason = _reason(record, selection)
            if reason:
                writer.add("dropped", Record(**_without_number({**record, "reason": reason})))
        for assigned in _passes(selection):
            _write_pass(staging, assigned, selection, writer)
        return writer.finish()


def _write_pass(
    staging: Staging, assigned: list[tuple[SplitName, int]], selection: Selection, writer: RecordWriter
) -> None:
    """The records of `assigned`, in its order, which is that of the input."""
    split_of = {number: split for split, number in assigned}
    for record in staging.all_records():
        number = record.get("number")
        if number not in split_of:
            continue
        size = int(selection.cluster_sizes[number])
        if size > 1:
            record["attributes"]["copies"] = size
        kept = Record(**_without_number({**record, "excerpt": ""}))
        for name in index.SPLITS if number in selection.cut else (split_of[number],):
            writer.add(name, kept)


def _without_number(record: StagedRecord) -> StagedRecord:
    return {key: value for key, value in record.items() if key != "number"}


def _tokens_of(tokens: npt.NDArray[Any], documents: npt.NDArray[Any], number: int) -> npt.NDArray[Any]:
    start = int(documents["end"][number - 1]) if number else 0
    return tokens[start : int(documents["end"][number])]
