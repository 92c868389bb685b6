"""Which of the staged documents the data hold, how often, and in which split; and writing them.

Here all documents are known: near copies are found, weights applied, the validation part chosen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ptbr_slm.data import index
from ptbr_slm.data.document import DocumentCounts
from ptbr_slm.data.duplicates.clusters import Clusters, ShingleStore, find_clusters, repeats
from ptbr_slm.data.duplicates.exact import copies_of, split_keys
from ptbr_slm.data.duplicates.signatures import SignatureIndex
from ptbr_slm.data.encode import Encoder
from ptbr_slm.data.hold_out import HoldOut, choose_hold_out, cut_point
from ptbr_slm.data.index import FileEntry, SplitEntry, SplitName
from ptbr_slm.data.recipe import Recipe
from ptbr_slm.data.records import Record, RecordWriter
from ptbr_slm.data.shards import SplitWriter
from ptbr_slm.data.stages.rules import excessive_rules
from ptbr_slm.data.staging import StagedRecord, Staging
from ptbr_slm.tokenizer import Tokenizer

Halves = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which documents are left out, how often the others come, and what decides their split."""

    copies: npt.NDArray[np.int32]
    """(documents,) how often each is in its split; 0 where it is left out."""
    near_copy: npt.NDArray[np.bool_]
    """(documents,) whether each is left out as a near copy of another."""
    keys: npt.NDArray[np.float64]
    """(documents,) split keys; near copies share theirs."""
    hold_out: HoldOut
    clusters: Clusters | None
    cluster_sizes: npt.NDArray[np.uint32]
    """(documents,) how many documents of the input each is, exact and near copies counted; 0 for a copy."""
    near_duplicates: dict[str, str | int | float]
    """What the index says of near copies."""


TextsOf = Callable[[Sequence[int]], Iterable[tuple[int, str]]]
"""Numbers of documents, in order -> (number, text) of each."""


def choose(
    documents: npt.NDArray[Any],
    exact_copies: npt.NDArray[np.uint64],
    recipe: Recipe,
    signatures: SignatureIndex | None,
    near_folder: Path,
    texts_of: TextsOf,
    valid_fraction: float,
) -> Choice:
    """Choose among `documents` of `staging.DOCUMENT`, no two of one identity; their order matters.

    exact_copies: identities of the documents that were left out as exact copies, one for each of them.
    signatures: of the documents, by their position; closed here. None looks for no near copies.
    near_folder: for the shingles of candidates, whose texts `texts_of` gives once.
    """
    weights = np.array([source.weight for source in recipe.sources])[documents["source"]]
    keys = documents["key"].copy()
    cluster_sizes = copies_of(documents["identity"], exact_copies)
    clusters, described = None, {}
    near_copy = np.zeros(len(documents), np.bool_)
    if signatures is not None:
        with signatures:
            pairs = signatures.candidate_pairs()
        with ShingleStore(near_folder, pairs, signatures.settings) as store:
            for number, text in texts_of(store.wanted.tolist()):
                store.add(number, text)
            clusters = find_clusters(pairs, store, len(documents))
        cluster_sizes = clusters.sizes(cluster_sizes)
        together, identities = clusters.group_identities(documents["identity"])
        keys[together] = split_keys(identities)
        if recipe.drop_near_duplicates:
            near_copy[clusters.members[clusters.members != clusters.kept]] = True
        described = {
            **signatures.settings.description(),
            "found": clusters.copies,
            "dropped": recipe.drop_near_duplicates,
        }
    if recipe.repeat_copies:
        weights *= repeats(cluster_sizes)
    copies = np.where(near_copy, np.int32(0), _copies(weights, documents["identity"]))
    del weights
    hold_out = choose_hold_out(keys, np.where(copies > 0, documents["bytes"], 0), valid_fraction)
    return Choice(copies, near_copy, keys, hold_out, clusters, cluster_sizes, described)


@dataclass(slots=True)
class Selection:
    """What becomes of each staged document."""

    held_out: npt.NDArray[np.bool_]
    """(documents,) whether each is in the validation split."""
    copies: npt.NDArray[np.int32]
    near_copy: npt.NDArray[np.bool_]
    """As in `Choice`."""
    cut: dict[int, Halves]
    """Documents whose end is held out: (training part, validation part)."""
    clusters: Clusters | None
    cluster_sizes: npt.NDArray[np.uint32]
    """As in `Choice`."""
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
    text_of = staging.texts(Encoder(tokenizer))

    def texts_of(numbers: Sequence[int]) -> Iterator[tuple[int, str]]:
        return ((number, text_of(number)) for number in numbers)

    choice = choose(
        staging.all_documents(),
        staging.all_copies(),
        recipe,
        signatures,
        staging.near_folder,
        texts_of,
        valid_fraction,
    )
    hold_out, copies = choice.hold_out, choice.copies
    cut: dict[int, Halves] = {}
    if hold_out.cut is not None:
        ends_held_out = np.flatnonzero((choice.keys == hold_out.cut) & (copies > 0)).tolist()
        for number, text in texts_of(ends_held_out):
            at = cut_point(text, hold_out.cut_bytes)
            if at is not None:
                cut[number] = text[:at].rstrip(), text[at:].strip("\n")
    held_out = hold_out.held_out(choice.keys)
    selection = Selection(
        held_out, copies, choice.near_copy, cut, choice.clusters, choice.cluster_sizes, choice.near_duplicates
    )
    if cut or not copies.all():
        for record in staging.all_records():
            if record.get("number") in cut:
                counts.repair("end_held_out", record["source"])
            elif "number" in record and (reason := _reason(record, selection)):
                counts.drop(reason, record["source"])
    return selection


def _copies(weights: npt.NDArray[np.float64], identities: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
    """Whole copies by weight, and one more for the share of the documents that its fraction says."""
    whole = np.floor(weights)
    more = identities / 2.0**64 < weights - whole
    return (whole + more).astype(np.int32)


def write_splits(
    staging: Staging, selection: Selection, folder: Path, tokenizer: Tokenizer, shard_tokens: int
) -> dict[SplitName, SplitEntry]:
    """Write the shards of both splits; the further copies of a document come after all documents."""
    encoder = Encoder(tokenizer)
    with ExitStack() as stack:
        writers: dict[SplitName, SplitWriter] = {
            name: stack.enter_context(SplitWriter(folder, name, tokenizer.vocab_size, shard_tokens))
            for name in index.SPLITS
        }
        for number, size, words, tokens in _in_order(staging, selection):
            if number in selection.cut:
                halves = selection.cut[number]
                for name, text, encoded in zip(index.SPLITS, halves, encoder.encode(halves), strict=True):
                    writers[name].write(encoded, text_bytes=len(text.encode()), words=len(text.split()))
            else:
                writers[_split(selection, number)].write(tokens, text_bytes=size, words=words)
        return {name: writer.finish() for name, writer in writers.items()}


def _split(selection: Selection, number: int) -> SplitName:
    return "valid" if selection.held_out[number] else "train"


def _in_order(staging: Staging, selection: Selection) -> Iterator[tuple[int, int, int, npt.NDArray[Any]]]:
    """(document, its bytes, words and tokens) as written; one that is cut is there once."""
    for wanted in _passes(selection):
        start = 0
        for first, part in staging.document_parts():
            for at in np.flatnonzero(wanted[first : first + len(part)]).tolist():
                _, size, words, *_ = part[at].item()
                before = int(part["end"][at - 1]) if at else start
                yield first + at, size, words, staging.read_tokens(before, int(part["end"][at]))
            start = int(part["end"][-1])


def _passes(selection: Selection) -> Iterator[npt.NDArray[np.bool_]]:
    """(documents,) which are written: all, then the second copies, then the third ones."""
    yield selection.copies > 0
    for earlier in range(1, int(selection.copies.max(initial=1))):
        again = (selection.copies > earlier) & ~selection.held_out
        again[list(selection.cut)] = False
        yield again


@dataclass(slots=True)
class Tally:
    """Documents kept and dropped, by source, licence and variety."""

    licences: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)
    """Name of a source -> reason -> documents."""
    varieties: dict[str, Counter[str]] = field(default_factory=dict)
    """Variety -> `kept` or `dropped` -> documents."""

    def add(self, record: Record) -> None:
        """Count a document, dropped where its record has a reason."""
        variety = record.attributes.get("variety")
        if variety is not None:
            outcome = "dropped" if record.reason else "kept"
            self.varieties.setdefault(str(variety), Counter())[outcome] += 1
        if record.reason:
            self.dropped.setdefault(record.origin, Counter())[record.reason] += 1
        else:
            self.kept[record.origin] += 1
            self.licences[record.licence] += 1

    def told(self, recipe: Recipe) -> dict[str, Any]:
        """What index.json says, but for the records."""
        told = describe_counts(self.licences, self.varieties)
        sources = [
            {
                "name": source.name,
                "preset": source.stages.name,
                "stages": [stage.name for stage in source.stages.all],
                "weight": source.weight,
                "licence": source.licence,
                "documents": self.kept[source.name],
                "dropped": dict(sorted(self.dropped.get(source.name, Counter()).items())),
                **({"hub": [asdict(pin) for pin in source.hub]} if source.hub else {}),
            }
            for source in recipe.sources
        ]
        told |= describe_excessive(sources)
        if recipe.keep_records or any(source.hub for source in recipe.sources):
            told["sources"] = sources
        return told


def describe_counts(
    licences: Mapping[str, int], varieties: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    """Documents by licence and by variety, where there are any."""
    told: dict[str, Any] = {}
    if set(licences) - {""}:
        told["licences"] = dict(sorted(licences.items()))
    if varieties:
        told["varieties"] = {
            code: {outcome: varieties[code].get(outcome, 0) for outcome in ("kept", "dropped")}
            for code in sorted(varieties)
        }
    return told


def describe_excessive(sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The rules that took too much of a source, where there are any."""
    excessive = [
        {"source": source["name"], **rule._asdict(), "share": round(rule.share, 4)}
        for source in sources
        for rule in excessive_rules(
            Counter(source["dropped"]), source["documents"] + sum(source["dropped"].values())
        )
    ]
    return {"excessive_rules": excessive} if excessive else {}


def describe(staging: Staging, selection: Selection, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """What index.json says of the recipe; with the records in `folder` where they are wanted.

    Empty for plain inputs without licences, none from the hub, of which no rule took too much.
    """
    tally = Tally()
    for record in staging.all_records():
        tally.add(Record(**_without_number({**record, "reason": _reason(record, selection)})))
    told = tally.told(recipe)
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
    return "near_duplicate" if selection.near_copy[number] else "not_sampled"


def _write_records(staging: Staging, selection: Selection, folder: Path) -> tuple[FileEntry, ...]:
    """The records of each split in the order of its documents, and of what was dropped."""
    with RecordWriter(folder) as writer:
        for record in staging.all_records():
            reason = _reason(record, selection)
            if reason:
                writer.add("dropped", Record(**_without_number({**record, "reason": reason})))
        for wanted in _passes(selection):
            _write_pass(staging, wanted, selection, writer)
        return writer.finish()


def _write_pass(
    staging: Staging, wanted: npt.NDArray[np.bool_], selection: Selection, writer: RecordWriter
) -> None:
    """The records of the documents that `wanted` marks, in the order of the input."""
    for record in staging.all_records():
        number = record.get("number")
        if number is None or not wanted[number]:
            continue
        size = int(selection.cluster_sizes[number])
        if size > 1:
            record["attributes"]["copies"] = size
        kept = Record(**_without_number({**record, "excerpt": ""}))
        for name in index.SPLITS if number in selection.cut else (_split(selection, number),):
            writer.add(name, kept)


def _without_number(record: StagedRecord) -> StagedRecord:
    return {key: value for key, value in record.items() if key != "number"}
