"""`prepare` in parts, for several machines: the same documents in the same splits, whatever runs the parts.

One thing differs: paragraphs that repeat over documents are left (`stages.repeated_paragraphs`), as finding
them takes reading in order.

1. Each part reads a run of the input files (`files_of_part`), cleans and filters, and writes what became of
   each document with `part_writer`: texts, fingerprints, MinHash signatures. Parts do not know of each other.
2. `choose_parts` looks at all of them: exact and near copies, and what is held out for validation.
3. `tokenize_part` makes a prepared folder of the documents of one part that are kept, with its own shards.
4. `join.join` makes one prepared folder of these.

Each step writes its folder whole or not at all, and again with the same content, so that a step whose process
was killed is done again, or twice at a time. The folders are on a disk that all machines see.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ptbr_slm.data import index
from ptbr_slm.data.document import REPAIRS_ATTRIBUTE, Document, DocumentCounts, Skipped
from ptbr_slm.data.duplicates.exact import fingerprint
from ptbr_slm.data.duplicates.signatures import NearDuplicateSettings, SignatureIndex, signatures
from ptbr_slm.data.encode import Encoder, boundary_ids
from ptbr_slm.data.hold_out import HoldOut
from ptbr_slm.data.index import Index, SplitName
from ptbr_slm.data.read.files import InputFile
from ptbr_slm.data.recipe import Recipe, Source
from ptbr_slm.data.records import EXCERPT, Record, RecordWriter
from ptbr_slm.data.select import Tally, choose
from ptbr_slm.data.shards import SHARD_TOKENS, SplitWriter, token_dtype
from ptbr_slm.data.stages.clean import NORMALIZATION
from ptbr_slm.data.stages.stage import Dropped
from ptbr_slm.data.staging import DOCUMENT
from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.atomic import atomic_folder, write_json, write_text
from ptbr_slm.tokenizer import Tokenizer

_BATCH = 512
_BATCH_CHARACTERS = 4_000_000
_REASONS = ("", "duplicate", "near_duplicate")
_EXACT = _REASONS.index("duplicate")
_NEAR = _REASONS.index("near_duplicate")
_DECISION = np.dtype([("reason", "u1"), ("key", "<f8"), ("cluster", "<u4")])
"""A document of a part: which of `_REASONS` leaves it out, its split key, the documents it stands for."""
_Line = dict[str, Any]
"""A `Record` as a dictionary; with the `text` where no stage dropped the document."""


def files_of_part(
    files: Sequence[InputFile | Skipped], part: int, parts: int
) -> Iterator[InputFile | Skipped]:
    """The files of one part: a run of `files`, about as many bytes as each other part has.

    The parts in order give the files in order. A file is never divided.
    """
    sizes = [0 if isinstance(file, Skipped) else file.path.stat().st_size for file in files]
    total = max(sum(sizes), 1)
    for file, size, end in zip(files, sizes, accumulate(sizes), strict=True):
        if min(int((end - size / 2) * parts / total), parts - 1) == part:
            yield file


class PartWriter:
    """Writes what became of the documents of a part, in the order of the input."""

    def __init__(
        self, folder: Path, near: NearDuplicateSettings | None, licence: str, seed: int, stack: ExitStack
    ) -> None:
        self._near, self._licence, self._seed = near, licence, seed
        self._lines, self._documents, self._bands = (
            stack.enter_context((folder / name).open("wb")) for name in ("lines", "documents", "bands")
        )
        self._batch: list[str] = []
        self._characters = 0

    def keep(self, document: Document) -> None:
        """A document that went through every stage."""
        self._write(document, {"text": document.text})
        self._batch.append(document.text)
        self._characters += len(document.text)
        if len(self._batch) >= _BATCH or self._characters >= _BATCH_CHARACTERS:
            self.flush()

    def drop(self, document: Document, dropped: Dropped, stage: str) -> None:
        """A document that a stage did not want; `document` as it was before the stage."""
        document = document.with_attributes(**dropped.attributes)
        told = {"reason": dropped.reason, "stage": stage, "figures": dict(dropped.figures)}
        self._write(document, {**told, "excerpt": document.text[:EXCERPT]})

    def skip(self, skipped: Skipped) -> None:
        """What a reader could make no document of."""
        self._write_line({"source": skipped.source, "reason": skipped.reason, "count": skipped.count})

    def flush(self) -> None:
        """Measure the documents that wait for it."""
        rows = []
        for text in self._batch:
            identity, key = fingerprint(text, self._seed)
            rows.append((0, len(text.encode()), len(text.split()), identity, key, 0))
        self._documents.write(np.array(rows, dtype=DOCUMENT).tobytes())
        if self._near is not None and rows:
            self._bands.write(signatures(self._batch, self._near).tobytes())
        self._batch, self._characters = [], 0

    def _write(self, document: Document, more: _Line) -> None:
        self._write_line(
            {
                "source": document.source,
                "id": document.id,
                "licence": document.licence or self._licence,
                "bytes": len(document.text.encode("utf-8", "surrogatepass")),
                "attributes": dict(document.attributes),
                **more,
            }
        )

    def _write_line(self, line: _Line) -> None:
        self._lines.write(json.dumps(line).encode("ascii") + b"\n")


@contextmanager
def part_writer(out: Path, recipe: Recipe, seed: int) -> Iterator[PartWriter]:
    """Write the part `out`; it appears when the block ends without an error.

    Raises E_USAGE for a recipe of several sources or with weights, E_DEPENDENCY, E_DISK_FULL, E_PERMISSION.
    """
    source = _only_source(recipe)
    with os_errors(out), atomic_folder(out) as folder, ExitStack() as stack:
        writer = PartWriter(folder, recipe.near_duplicates, source.licence, seed, stack)
        yield writer
        writer.flush()


def choose_parts(parts: Sequence[Path], out: Path, recipe: Recipe, valid_fraction: float) -> None:
    """Decide about every document of `parts`, in their order, and write the decisions to the folder `out`.

    Memory: 120 bytes a document, and what `choose` takes. The texts of candidates are read from the parts.
    Raises E_USAGE as `part_writer` does, E_DATA_EMPTY where no part has a document.
    """
    _only_source(recipe)
    documents = [np.fromfile(part / "documents", dtype=DOCUMENT) for part in parts]
    ends = [0, *accumulate(map(len, documents))]
    everything = np.concatenate(documents)
    if not len(everything):
        raise SlmError(
            "E_DATA_EMPTY",
            "nenhum texto aproveitável em nenhuma das partes.",
            where=", ".join(map(str, parts[:3])),
            hint="Confira a limpeza escolhida e os arquivos de entrada.",
        )
    first = np.zeros(len(everything), bool)
    first[np.unique(everything["identity"], return_index=True)[1]] = True
    numbers = np.cumsum(first) - 1  # exact copies have none
    with os_errors(out), atomic_folder(out) as folder, ExitStack() as stack:
        near_folder = folder / "near"
        near = None
        if recipe.near_duplicates is not None:
            near = stack.enter_context(SignatureIndex(near_folder, recipe.near_duplicates))
            for part, start, stop in zip(parts, ends, ends[1:], strict=False):
                _add_signatures(near, part, numbers[start:stop], first[start:stop])

        def texts_of(wanted: Sequence[int]) -> Iterator[tuple[int, str]]:
            left = set(wanted)
            for part, start in zip(parts, ends, strict=False):
                lines = (line for line in _lines(part) if "text" in line)
                for position, line in enumerate(lines, start):
                    if first[position] and int(numbers[position]) in left:
                        yield int(numbers[position]), line["text"]

        exact = everything["identity"][~first]
        choice = choose(everything[first], exact, recipe, near, near_folder, texts_of, valid_fraction)
        decisions = np.zeros(len(everything), _DECISION)
        decisions["reason"][~first] = _EXACT
        decisions["reason"][first] = np.where(choice.copies, 0, _NEAR)
        decisions["key"][first] = choice.keys
        decisions["cluster"][first] = choice.cluster_sizes
        for number, (start, stop) in enumerate(pairwise(ends)):
            decisions[start:stop].tofile(folder / f"{number:05d}.decisions")
        hold_out = {**asdict(choice.hold_out), "exceptions": sorted(choice.hold_out.exceptions)}
        described = {"hold_out": hold_out, "near_duplicates": choice.near_duplicates}
        write_json(folder / "choice.json", {**described, "valid_fraction": valid_fraction})


def tokenize_part(
    part: Path,
    number: int,
    choice: Path,
    out: Path,
    tokenizer: Tokenizer,
    recipe: Recipe,
    *,
    seed: int,
    shard_tokens: int = SHARD_TOKENS,
) -> None:
    """Make the prepared folder `out` of a part; `number`: which of the parts of `choice` it is.

    Raises E_TOKENIZER_INVALID, E_DISK_FULL, E_PERMISSION, E_NOT_FOUND where an earlier step is missing.
    """
    source = _only_source(recipe)
    with os_errors(choice):
        decided = json.loads((choice / "choice.json").read_bytes())
        decisions = np.fromfile(choice / f"{number:05d}.decisions", _DECISION)
    hold_out = HoldOut(**{**decided["hold_out"], "exceptions": frozenset(decided["hold_out"]["exceptions"])})
    near: dict[str, str | int | float] = decided["near_duplicates"]
    if near:
        near["found"] = int(np.count_nonzero((decisions["cluster"] == 0) & (decisions["reason"] != _EXACT)))
    encoder, counts = Encoder(tokenizer), DocumentCounts()
    bos, eos = boundary_ids(tokenizer)
    tally = Tally()
    with os_errors(out), atomic_folder(out) as folder, ExitStack() as stack:
        records = stack.enter_context(RecordWriter(folder))
        writers: dict[SplitName, SplitWriter] = {
            name: stack.enter_context(SplitWriter(folder, name, tokenizer.vocab_size, shard_tokens))
            for name in index.SPLITS
        }
        for line, text, key in _decided(part, decisions):
            count = line.pop("count", 1)
            record = Record(**line, origin=source.name)
            tally.add(record)
            for repair in str(record.attributes.get(REPAIRS_ATTRIBUTE, "")).split():
                counts.repair(repair, record.source)
            if record.reason:
                counts.drop(record.reason, record.source, count)
                records.add("dropped", record)
                continue
            assigned = hold_out.assign(Document(text, record.source), key)
            if len(assigned) > 1:
                counts.repair("end_held_out", record.source)
            for name, document in assigned:
                [tokens] = encoder.encode([document.text])
                if len(assigned) == 1 and not encoder.spells(text, tokens):
                    counts.repair("not_spelled", record.source)
                size, words = len(document.text.encode()), len(document.text.split())
                writers[name].write(tokens, text_bytes=size, words=words)
                records.add(name, record)
        told = tally.told(replace(recipe, keep_records=True))
        told["records"] = [asdict(entry) for entry in records.finish()]
        write_text(folder / "tokenizer.json", tokenizer.to_json())
        index.write_index(
            folder,
            Index(
                dtype=token_dtype(tokenizer.vocab_size).name,
                vocab_size=tokenizer.vocab_size,
                tokenizer_sha256=tokenizer.sha256,
                bos_id=bos,
                eos_id=eos,
                normalization=NORMALIZATION,
                valid_fraction=decided["valid_fraction"],
                seed=seed,
                near_duplicates=near,
                splits={name: writer.finish() for name, writer in writers.items()},
                dropped=dict(counts.dropped),
                repaired=dict(counts.repaired),
                recipe=told,
            ),
        )


def _add_signatures(
    near: SignatureIndex, part: Path, numbers: npt.NDArray[Any], first: npt.NDArray[np.bool_]
) -> None:
    """The signatures of a part's documents, but for exact copies; `_BATCH` at a time."""
    bands = near.settings.bands
    with (part / "bands").open("rb") as file:
        for start in range(0, len(numbers), _BATCH):
            rows = min(_BATCH, len(numbers) - start)
            hashes = np.fromfile(file, np.uint64, rows * bands).reshape(rows, bands)  # (D, bands)
            new = first[start : start + rows]
            near.add(numbers[start : start + rows][new].tolist(), hashes[new])


def _decided(part: Path, decisions: npt.NDArray[Any]) -> Iterator[tuple[_Line, str, float]]:
    """(record, text, split key) of everything that the part has; a reason is added where a copy goes."""
    position = 0
    for line in _lines(part):
        text, key = line.pop("text", None), 0.0
        if text is not None:
            reason, key, cluster = decisions[position].item()
            position += 1
            if reason:
                line |= {"reason": _REASONS[reason], "excerpt": text[:EXCERPT]}
            elif cluster > 1:
                line["attributes"]["copies"] = cluster
        yield line, text or "", key


def _lines(part: Path) -> Iterator[_Line]:
    path = part / "lines"
    with os_errors(path), path.open("rb") as file:
        yield from map(json.loads, file)


def _only_source(recipe: Recipe) -> Source:
    if len(recipe.sources) != 1 or recipe.sources[0].weight != 1 or recipe.repeat_copies:
        raise SlmError(
            "E_USAGE",
            "em partes só se prepara uma fonte, sem peso e sem repetir cópias.",
            where=", ".join(source.name for source in recipe.sources),
            hint="Prepare cada fonte em sua pasta.",
        )
    return recipe.sources[0]
