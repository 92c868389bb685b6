"""Fills the working folder of `prepare`: every document read, processed and counted, without exact copies."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ptbr_slm.data.batches import read_batches
from ptbr_slm.data.document import DocumentCounts, Skipped
from ptbr_slm.data.duplicates.exact import SeenTexts
from ptbr_slm.data.duplicates.signatures import SignatureIndex
from ptbr_slm.data.process import Cleaned, Outcome, Processed, Processor
from ptbr_slm.data.read.files import InputFile
from ptbr_slm.data.recipe import Recipe
from ptbr_slm.data.stages import repeated_paragraphs
from ptbr_slm.data.stages.repeated_paragraphs import RemoveRepeatedParagraphs, RepeatedParagraphs
from ptbr_slm.data.stages.stage import Dropped
from ptbr_slm.data.staging import StagedRecord, Staging
from ptbr_slm.data.workers import process_in_order
from ptbr_slm.data.wrong_input import SourceLimit, WrongInputLimits
from ptbr_slm.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class PrepareProgress:
    """How far `prepare` is: an event after every batch of documents and at the end."""

    input_bytes: int
    """Bytes of the input files read so far, compressed ones as they are on disk."""
    tokens: int
    """Written so far."""


ProgressCallback = Callable[[PrepareProgress], None]


def ingest(
    recipe: Recipe,
    files: Sequence[tuple[int, InputFile | Skipped]],
    tokenizer: Tokenizer,
    seed: int,
    workers: int,
    staging: Staging,
    counts: DocumentCounts,
    progress: ProgressCallback | None,
) -> SignatureIndex | None:
    """Read, clean and tokenize everything into `staging`; the MinHash signatures where they are wanted.

    Raises E_DATA_WRONG for a source of which too much is wrong; the work up to the last checkpoint stays.
    """
    checkpoint = staging.checkpoint
    if staging.resumed:
        counts.restore(checkpoint.counts)
    store = _Store(recipe, files, staging, counts)
    processor = Processor(
        tuple(source.stages for source in recipe.sources), tokenizer.to_json(), seed, recipe.near_duplicates
    )
    start = checkpoint.file, checkpoint.item
    batches = read_batches(recipe.sources, files, start, counts.input_bytes)
    for processed in process_in_order(processor, batches, workers, _repeated_paragraphs(recipe, staging)):
        store.add(processed)
        if progress is not None:
            progress(PrepareProgress(counts.input_bytes, staging.tokens))
        if processed.batch.checkpoint:
            store.save(processed.batch.file, processed.batch.item)
    store.limits.check()
    return store.signatures


def _repeated_paragraphs(recipe: Recipe, staging: Staging) -> Callable[[Cleaned], Cleaned] | None:
    """What takes repeated paragraphs out of the sources whose stages ask for it; None where none does.

    It is ahead of what is stored. So it saves its state itself, for the batches that a checkpoint follows.
    """
    wanted = {
        number
        for number, source in enumerate(recipe.sources)
        if any(isinstance(stage, RemoveRepeatedParagraphs) for stage in source.stages.cleaning)
    }
    if not wanted:
        return None
    paragraphs = RepeatedParagraphs(memory=repeated_paragraphs.MEMORY)
    saved = staging.paragraphs_file(staging.checkpoint.file, staging.checkpoint.item)
    if staging.resumed:
        with saved.open("rb") as file:
            paragraphs.load(file)

    def between(cleaned: Cleaned) -> Cleaned:
        entries: list[tuple[int, Skipped | Outcome]] = []
        for source, answer in cleaned.entries:
            if source in wanted and isinstance(answer, Outcome) and answer.dropped is None:
                answer = _without_repeated(paragraphs, answer)
            entries.append((source, answer))
        batch = cleaned.batch
        if batch.checkpoint:
            with staging.paragraphs_file(batch.file, batch.item).open("wb") as file:
                paragraphs.save(file)
                file.flush()
                os.fsync(file.fileno())
        return replace(cleaned, entries=entries)

    return between


def _without_repeated(paragraphs: RepeatedParagraphs, cleaned: Outcome) -> Outcome:
    answer = paragraphs(cleaned.document)
    if isinstance(answer, Dropped):
        return replace(cleaned, stage=RemoveRepeatedParagraphs().name, dropped=answer)
    return replace(cleaned, document=answer)


class _Store:
    """Counts processed batches, drops exact copies, and appends the rest to the working folder."""

    def __init__(
        self,
        recipe: Recipe,
        files: Sequence[tuple[int, InputFile | Skipped]],
        staging: Staging,
        counts: DocumentCounts,
    ) -> None:
        self._recipe, self._staging, self._counts = recipe, staging, counts
        self._seen = SeenTexts(staging.column("identity"))
        self.signatures: SignatureIndex | None = None
        if recipe.near_duplicates is not None:
            length = staging.checkpoint.signatures
            self.signatures = SignatureIndex(staging.near_folder, recipe.near_duplicates, length=length)
        sizes = _source_sizes(len(recipe.sources), files)
        limits = [
            SourceLimit(source.name or str(source.inputs[0]), source.max_wrong, size)
            for source, size in zip(recipe.sources, sizes, strict=True)
        ]
        self.limits = WrongInputLimits(limits, staging.checkpoint.limits)

    def add(self, processed: Processed) -> None:
        """Store a batch. Raises E_DATA_WRONG."""
        new: list[int] = []  # rows of the signatures
        first = self._staging.documents
        row = 0
        for source, answer, kept in processed.entries:
            self.limits.add(source, answer)
            name = self._recipe.sources[source].name
            if isinstance(answer, Skipped):
                self._counts.skip(answer)
                self._staging.record({"source": answer.source, "origin": name, "reason": answer.reason})
                continue
            count(answer, self._counts)
            record = self._record_of(source, answer)
            if kept is not None:
                if self._seen.add(kept.identity):
                    record["number"] = self._staging.documents
                    self._staging.add(kept, source)
                    if kept.text:
                        self._counts.repair("not_spelled", answer.document.source)
                    new.append(row)
                else:
                    self._counts.drop("duplicate", answer.document.source)
                    self._staging.add_copy(kept.identity)
                    record["reason"] = "duplicate"
                row += 1
            self._staging.record(record)
        if self.signatures is not None and processed.bands is not None and new:
            self.signatures.add(range(first, self._staging.documents), processed.bands[new])
        self._counts.input_bytes = processed.batch.input_bytes
        self.limits.check(self._counts.input_bytes)

    def save(self, file: int, item: int) -> None:
        """Write a checkpoint: the next document is in this file, after this many of its documents."""
        length = 0
        if self.signatures is not None:
            self.signatures.flush()
            length = self.signatures.length
        self._staging.save(file, item, length, self._counts, self.limits.state())

    def _record_of(self, source: int, outcome: Outcome) -> StagedRecord:
        document, origin = outcome.document, self._recipe.sources[source]
        record: StagedRecord = {
            "source": document.source,
            "origin": origin.name,
            "id": document.id,
            "licence": document.licence or origin.licence,
            "attributes": dict(document.attributes),
            "bytes": outcome.bytes,
            "excerpt": document.text,
        }
        if outcome.dropped is not None:
            figures = dict(outcome.dropped.figures)
            record |= {"reason": outcome.dropped.reason, "stage": outcome.stage, "figures": figures}
        return record


def _source_sizes(sources: int, files: Sequence[tuple[int, InputFile | Skipped]]) -> list[int]:
    """Bytes of each source's files on disk; pipes have none."""
    sizes = [0] * sources
    for source, found in files:
        if isinstance(found, InputFile) and found.path.is_file():
            sizes[source] += found.path.stat().st_size
    return sizes


def count(outcome: Outcome, counts: DocumentCounts) -> None:
    """Count what was repaired in a document, and that it is dropped."""
    for kind in outcome.repairs:
        counts.repair(kind, outcome.document.source)
    if outcome.dropped is not None:
        counts.drop(outcome.dropped.reason, outcome.document.source)
