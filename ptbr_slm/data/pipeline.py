"""Texts in, prepared data out: read, clean, drop copies, split, tokenize in batches, write shards.

`read_documents` is the part that looks at one document at a time; `prepare` is all of it; `open_or_prepare`
is what a command does with its `--data`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ptbr_slm.data import index
from ptbr_slm.data.document import REPAIRS_ATTRIBUTE, Document, DocumentCounts, Skipped, describe_dropped
from ptbr_slm.data.duplicates.clusters import Clusters, find_near_duplicates
from ptbr_slm.data.duplicates.exact import SeenTexts, copies_of, fingerprint, key_of
from ptbr_slm.data.duplicates.signatures import NearDuplicateSettings
from ptbr_slm.data.encode import Encoder, boundary_ids
from ptbr_slm.data.hold_out import Assigned, HoldOut, choose_hold_out
from ptbr_slm.data.index import Index
from ptbr_slm.data.prepared import PreparedData, is_prepared
from ptbr_slm.data.presets import DEFAULT, Preset, preset
from ptbr_slm.data.read.files import input_files, list_files
from ptbr_slm.data.read.formats import TEXT_FIELD
from ptbr_slm.data.read.reader import Position, read_file
from ptbr_slm.data.shards import SHARD_TOKENS, SplitWriter, token_dtype
from ptbr_slm.data.stages.clean import NORMALIZATION
from ptbr_slm.data.stages.markup import Markup
from ptbr_slm.data.stages.stage import Stage, run
from ptbr_slm.data.store import DocumentStore
from ptbr_slm.errors import Exit, SlmError
from ptbr_slm.storage.atomic import atomic_folder, may_replace, write_text
from ptbr_slm.text import UTF16_HINT, quoted
from ptbr_slm.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class PrepareProgress:
    """How far `prepare` is: an event after every batch of documents and at the end."""

    input_bytes: int
    """Bytes of the input files read so far, compressed ones as they are on disk."""
    tokens: int
    """Written so far."""


ProgressCallback = Callable[[PrepareProgress], None]

NEAR_DUPLICATES = NearDuplicateSettings()
_PROGRESS_DOCUMENTS = 256
"""Documents read between two events."""


def read_documents(
    inputs: Sequence[Path],
    *,
    paragraph_documents: bool = False,
    stages: Preset | None = None,
    text_field: str = TEXT_FIELD,
    counts: DocumentCounts | None = None,
) -> Iterator[Document]:
    """Every document of `inputs` that its stages keep, one at a time; what is left out is in `counts`.

    A .txt file is a document, or with `paragraph_documents` each of its blank-line blocks; a JSONL line or a
    Parquet row with a `text` is one. Memory holds a document, never a file. Copies are not looked for here.
    Raises E_NOT_FOUND, E_PERMISSION or E_DATA_FORMAT.
    """
    counts = counts if counts is not None else DocumentCounts()
    stages = stages if stages is not None else preset(DEFAULT)
    for file in list_files(inputs):
        if isinstance(file, Skipped):
            counts.drop(file.reason, file.source, file.count)
            continue
        by_paragraph = paragraph_documents and file.format in ("text", "stdin")
        position, before = Position(), counts.input_bytes
        for raw in read_file(file, text_field, position):
            counts.input_bytes = before + position.now
            if isinstance(raw, Skipped):
                counts.drop(raw.reason, raw.source, raw.count)
                continue
            for kind in _repairs(raw):
                counts.repair(kind, raw.source)
            cleaned = _run_counted((Markup(), *stages.cleaning), raw, counts)
            if cleaned is None:
                continue
            for part in _paragraphs(cleaned) if by_paragraph else [cleaned]:
                kept = _run_counted((*stages.tagging, *stages.filtering), part, counts)
                if kept is not None:
                    yield kept
        counts.input_bytes = before + position.now


def _run_counted(stages: tuple[Stage, ...], document: Document, counts: DocumentCounts) -> Document | None:
    """The document after `stages`, its repairs counted; None where it was dropped, which is counted."""
    earlier = len(_repairs(document))
    result = run(stages, document)
    after = result if isinstance(result, Document) else result[0]
    for kind in _repairs(after)[earlier:]:
        counts.repair(kind, after.source)
    if isinstance(result, Document):
        return result
    counts.drop(result[2].reason, document.source)
    return None


def _repairs(document: Document) -> list[str]:
    return str(document.attributes.get(REPAIRS_ATTRIBUTE, "")).split()


def _paragraphs(document: Document) -> Iterator[Document]:
    """Each blank-line block of a document as a document; the repairs are told of the whole, once."""
    attributes = {key: value for key, value in document.attributes.items() if key != REPAIRS_ATTRIBUTE}
    for text in document.text.split("\n\n"):
        yield replace(document, text=text, attributes=attributes)


def prepare(
    inputs: Sequence[Path],
    out: Path,
    tokenizer: Tokenizer,
    *,
    valid_fraction: float = 0.01,
    paragraph_documents: bool = False,
    near_duplicates: NearDuplicateSettings | None = NEAR_DUPLICATES,
    drop_near_duplicates: bool = False,
    seed: int = 0,
    shard_tokens: int = SHARD_TOKENS,
    counts: DocumentCounts | None = None,
    progress: ProgressCallback | None = None,
) -> PreparedData:
    """Turn `inputs` (files or folders, see `read_documents`) into the prepared folder `out`, atomically.

    valid_fraction: share of the text held out, 0 to 0.5: whole documents, and where these would be more than
    twice or less than half of it, the end of a long one (`hold_out`).
    near_duplicates: how near copies are found, which never fall on both sides of the split; None looks for
    exact copies only, which are always dropped. drop_near_duplicates: keep the first of near copies only.
    shard_tokens: tokens in a shard, at least one document. counts: filled with what was left out and why.
    The inputs are read once; what is kept waits in a file until all of it is known. Memory does not grow with
    the input, but for 40 bytes a document (copies, sizes), some 100 a near copy, and the open batch.
    Raises E_CONFIG, E_NOT_FOUND, E_EXISTS, E_DATA_FORMAT, E_DATA_EMPTY, E_DISK_FULL, E_PERMISSION, and
    E_DEPENDENCY where near copies are looked for and rensa is not installed.
    """
    _check_arguments(out, valid_fraction, shard_tokens)
    counts = counts if counts is not None else DocumentCounts()
    bos, eos = boundary_ids(tokenizer)
    with atomic_folder(out) as folder:
        work = folder / "work"
        work.mkdir()
        documents = read_documents(inputs, paragraph_documents=paragraph_documents, counts=counts)
        collected = _collect(documents, work / "documents", seed, counts, progress)
        if near_duplicates is not None:
            collected.find_near_duplicates(work / "near", near_duplicates, drop=drop_near_duplicates)
        choice = choose_hold_out(
            np.array(collected.keys), np.array(collected.sizes, np.uint32), valid_fraction
        )
        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(SplitWriter(folder, name, tokenizer.vocab_size, shard_tokens))
                for name in index.SPLITS
            }
            encoder = Encoder(tokenizer, bos, eos, writers)
            for split, document in _split(collected, choice, counts):
                if encoder.add(split, document) and progress is not None:
                    progress(PrepareProgress(counts.input_bytes, encoder.tokens))
            encoder.flush()
            if progress is not None:
                progress(PrepareProgress(counts.input_bytes, encoder.tokens))
            if not encoder.tokens:
                raise _nothing_left(inputs, counts)
            splits = {name: writer.finish() for name, writer in writers.items()}
        shutil.rmtree(work)
        write_text(folder / "tokenizer.json", tokenizer.to_json())
        described = Index(
            dtype=token_dtype(tokenizer.vocab_size).name,
            vocab_size=tokenizer.vocab_size,
            tokenizer_sha256=tokenizer.sha256,
            bos_id=bos,
            eos_id=eos,
            normalization=NORMALIZATION,
            valid_fraction=valid_fraction,
            paragraph_documents=paragraph_documents,
            seed=seed,
            near_duplicates=_description(near_duplicates, collected, drop_near_duplicates),
            splits=splits,
            dropped=dict(counts.dropped),
            repaired=dict(counts.repaired),
        )
        index.write_index(folder, described)
    return PreparedData.open(out, verify=False)


def open_or_prepare(
    path: Path, tokenizer: Path | None, cache: Path, *, progress: ProgressCallback | None = None
) -> PreparedData:
    """The prepared data that `--data` names, checked: a prepared folder, one of its files, or texts.

    Texts are prepared into a folder of `cache`, once, and again when a file's size or time, the tokenizer, or
    the way of cleaning has changed.
    tokenizer: a tokenizer.json or its folder; needed for texts, compared where the data have their own.
    Raises what `PreparedData.open` and `prepare` raise, E_TOKENIZER_MISSING, or E_TOKENIZER_MISMATCH.
    """
    if is_prepared(path):
        data = PreparedData.open(path)
        if tokenizer is not None:
            data.check_tokenizer(Tokenizer.load(tokenizer), tokenizer)
        return data
    files = [(str(file.path.resolve()), file.path.stat()) for file in input_files([path])]
    if tokenizer is None:
        raise SlmError(
            "E_TOKENIZER_MISSING",
            "os dados são texto: falta dizer com que tokenizador prepará-los.",
            where=path,
            hint="Acrescente --tokenizer tokenizer.json (para treinar um: "
            f"ptbr-slm tokenizer train {quoted(path)} -o tokenizer.json).",
        )
    opened = Tokenizer.load(tokenizer)
    stamps = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in files]
    identity = json.dumps([index.SCHEMA, NORMALIZATION, NEAR_DUPLICATES.description(), opened.sha256, stamps])
    digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
    folder = cache / f"prepared-{digest[:16]}"
    if folder.exists():
        try:
            return PreparedData.open(folder)
        except SlmError as error:
            if error.exit_code is not Exit.CORRUPT and error.code != "E_NOT_FOUND":
                raise
            shutil.rmtree(folder, ignore_errors=True)  # a damaged copy of what is about to be made again
    return prepare([path], folder, opened, progress=progress)


class _Collected:
    """The first of each text in a file, with what the steps that need all documents have found out."""

    def __init__(self, path: Path) -> None:
        self.documents = DocumentStore(path)
        self.keys = array("d")
        self.sizes = array("I")
        self.identities = array("Q")
        self.copies = array("Q")
        """Identities of the exact copies that were left out."""
        self.clusters: Clusters | None = None

    def find_near_duplicates(self, folder: Path, settings: NearDuplicateSettings, *, drop: bool) -> None:
        """Look for near copies: documents of a group get one key, and those that `drop` removes size 0."""
        clusters = find_near_duplicates(
            lambda: ((number, document.text) for number, document in enumerate(self.documents)),
            folder,
            settings,
        )
        together, identities = clusters.group_identities(np.array(self.identities, np.uint64))
        for number, identity in zip(together.tolist(), identities.tolist(), strict=True):
            self.keys[number] = key_of(identity)
        if drop:
            for number in clusters.members[clusters.members != clusters.kept].tolist():
                self.sizes[number] = 0
        self.clusters = clusters

    def copies_of_each(self) -> npt.NDArray[np.uint32]:
        """How many documents of the input each is: itself, its exact copies and its near copies.

        A near copy counts for the document that it is a copy of, whether it is dropped or not.
        """
        counts = copies_of(self.identities, self.copies)
        return counts if self.clusters is None else self.clusters.sizes(counts)


def _description(
    settings: NearDuplicateSettings | None, collected: _Collected, dropped: bool
) -> dict[str, str | int | float]:
    """What the index says of near copies."""
    if settings is None or collected.clusters is None:
        return {}
    return {**settings.description(), "found": collected.clusters.copies, "dropped": dropped}


def _collect(
    documents: Iterable[Document],
    path: Path,
    seed: int,
    counts: DocumentCounts,
    progress: ProgressCallback | None,
) -> _Collected:
    """The first of each text, in `path`; exact copies are counted."""
    seen, collected = SeenTexts(), _Collected(path)
    for document in documents:
        identity, key = fingerprint(document.text, seed)
        if not seen.add(identity):
            counts.drop("duplicate", document.source)
            collected.copies.append(identity)
            continue
        collected.documents.add(document)
        collected.identities.append(identity)
        collected.keys.append(key)
        collected.sizes.append(len(document.text.encode()))
        if progress is not None and collected.documents.length % _PROGRESS_DOCUMENTS == 0:
            progress(PrepareProgress(counts.input_bytes, 0))
    collected.documents.close()
    return collected


def _split(collected: _Collected, choice: HoldOut, counts: DocumentCounts) -> Iterator[Assigned]:
    """(split, document) of all that are kept, with the attribute `copies`; the one that is cut is counted."""
    copies = collected.copies_of_each()
    for number, document in enumerate(collected.documents):
        if not collected.sizes[number]:
            counts.drop("near_duplicate", document.source)
            continue
        if copies[number] > 1:
            document = document.with_attributes(copies=int(copies[number]))
        assigned = choice.assign(document, collected.keys[number])
        if len(assigned) > 1:
            counts.repair("end_held_out", document.source)
        yield from assigned


def _check_arguments(out: Path, valid_fraction: float, shard_tokens: int) -> None:
    if not 0 <= valid_fraction <= 0.5:
        raise SlmError(
            "E_CONFIG",
            f"a fração de validação deve estar entre 0 e 0,5, e não {valid_fraction}.",
            where="--valid-fraction",
            hint="Use --valid-fraction 0.01.",
        )
    if shard_tokens < 1:
        raise SlmError(
            "E_CONFIG",
            "um arquivo precisa de ao menos um token.",
            where="--shard-tokens",
            hint="Use 50000000.",
        )
    if not may_replace(out, index.KIND):
        raise SlmError(
            "E_EXISTS",
            "o destino já existe e não é uma pasta de dados preparados: não vou substituí-lo.",
            where=out,
            hint="Escolha outra pasta em --output.",
        )


def _nothing_left(inputs: Sequence[Path], counts: DocumentCounts) -> SlmError:
    reasons = describe_dropped(counts.dropped)
    convert = UTF16_HINT if counts.dropped["utf16"] else "iconv -f latin1 -t utf-8 ANTIGO > NOVO"
    return SlmError(
        "E_DATA_EMPTY",
        f"nenhum texto aproveitável ({reasons or 'nenhum arquivo de texto'}).",
        where=", ".join(map(str, inputs)),
        hint=f"Aponte para arquivos .txt, .jsonl ou .parquet em UTF-8 (para converter:  {convert}).",
    )
