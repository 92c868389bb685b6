"""Fills the working folder of `prepare`: every document read, processed and counted, without exact copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ptbr_slm.data.batches import read_batches
from ptbr_slm.data.document import DocumentCounts, Skipped
from ptbr_slm.data.duplicates.exact import SeenTexts
from ptbr_slm.data.duplicates.signatures import SignatureIndex
from ptbr_slm.data.process import Outcome, Processed, Processor
from ptbr_slm.data.read.files import InputFile
from ptbr_slm.data.recipe import Recipe
from ptbr_slm.data.staging import StagedRecord, Staging
from ptbr_slm.data.workers import process_in_order
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
    """Read, clean and tokenize everything into `staging`; the MinHash signatures where they are wanted."""
    checkpoint = staging.checkpoint
    seen = SeenTexts()
    for identity in staging.all_documents()["identity"].tolist():
        seen.add(identity)
    if staging.resumed:
        counts.restore(checkpoint.counts)
    signatures = None
    if recipe.near_duplicates is not None:
        signatures = SignatureIndex(staging.near_folder, recipe.near_duplicates, length=checkpoint.signatures)
    processor = Processor(
        tuple(source.stages for source in recipe.sources), tokenizer.to_json(), seed, recipe.near_duplicates
    )
    start = checkpoint.file, checkpoint.item
    batches = read_batches(recipe.sources, files, start, counts.input_bytes)
    for processed in process_in_order(processor, batches, workers):
        _store(processed, recipe, staging, seen, signatures, counts)
        counts.input_bytes = processed.batch.input_bytes
        if progress is not None:
            progress(PrepareProgress(counts.input_bytes, staging.tokens))
        if staging.wants_checkpoint:
            length = 0
            if signatures is not None:
                signatures.flush()
                length = signatures.length
            staging.save(processed.batch.file, processed.batch.item, length, counts)
    return signatures


def _store(
    processed: Processed,
    recipe: Recipe,
    staging: Staging,
    seen: SeenTexts,
    signatures: SignatureIndex | None,
    counts: DocumentCounts,
) -> None:
    """Count a batch, drop its exact copies, and append the rest to `staging`."""
    new: list[int] = []  # rows of the signatures
    first = staging.documents
    row = 0
    for source, answer, kept in processed.entries:
        name = recipe.sources[source].name
        if isinstance(answer, Skipped):
            counts.skip(answer)
            skipped = {"source": answer.source, "origin": name, "reason": answer.reason}
            staging.record(skipped)
            continue
        count(answer, counts)
        record: StagedRecord = {
            "source": answer.document.source,
            "origin": name,
            "id": answer.document.id,
            "licence": answer.document.licence or recipe.sources[source].licence,
            "attributes": dict(answer.document.attributes),
            "bytes": answer.bytes,
            "excerpt": answer.document.text,
        }
        if answer.dropped is not None:
            record |= {
                "reason": answer.dropped.reason,
                "stage": answer.stage,
                "figures": dict(answer.dropped.figures),
            }
        elif kept is not None:
            if seen.add(kept.identity):
                record["number"] = staging.documents
                staging.add(kept, source)
                new.append(row)
            else:
                counts.drop("duplicate", answer.document.source)
                staging.add_copy(kept.identity)
                record["reason"] = "duplicate"
            row += 1
        staging.record(record)
    if signatures is not None and processed.bands is not None and new:
        signatures.add(range(first, staging.documents), processed.bands[new])


def count(outcome: Outcome, counts: DocumentCounts) -> None:
    """Count what was repaired in a document, and that it is dropped."""
    for kind in outcome.repairs:
        counts.repair(kind, outcome.document.source)
    if outcome.dropped is not None:
        counts.drop(outcome.dropped.reason, outcome.document.source)
