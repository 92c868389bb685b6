"""Texts in, prepared data out: read, clean, drop copies, split, tokenize in batches, write shards.

`read_documents` is the part that looks at one document at a time; `prepare` is all of it; `open_or_prepare`
is what a command does with its `--data`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from ptbr_slm.data import index
from ptbr_slm.data.document import REPAIRS_ATTRIBUTE, Document, DocumentCounts, Skipped, describe_dropped
from ptbr_slm.data.duplicates.exact import SeenTexts, fingerprint
from ptbr_slm.data.encode import Encoder, boundary_ids
from ptbr_slm.data.hold_out import Assigned, DocumentSizes, HashSplitter, HoldOut, better_hold_out
from ptbr_slm.data.index import Index, SplitEntry, SplitName
from ptbr_slm.data.prepared import PreparedData, is_prepared
from ptbr_slm.data.presets import DEFAULT, Preset, preset
from ptbr_slm.data.read.files import input_files, list_files
from ptbr_slm.data.read.formats import TEXT_FIELD
from ptbr_slm.data.read.reader import Position, read_file
from ptbr_slm.data.shards import SHARD_TOKENS, SplitWriter, token_dtype
from ptbr_slm.data.stages.clean import NORMALIZATION
from ptbr_slm.data.stages.markup import Markup
from ptbr_slm.data.stages.stage import Stage, run
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
    seed: int = 0,
    shard_tokens: int = SHARD_TOKENS,
    counts: DocumentCounts | None = None,
    progress: ProgressCallback | None = None,
) -> PreparedData:
    """Turn `inputs` (files or folders, see `read_documents`) into the prepared folder `out`, atomically.

    valid_fraction: share of the text held out, 0 to 0.5: whole documents, and where these would be more than
    twice or less than half of it, the end of a long one (`hold_out`). The texts are read twice then.
    shard_tokens: tokens in a shard, at least one document. counts: filled with what was left out and why.
    Memory does not grow with the input, but for 20 to 28 bytes a document (copies, sizes) and the open batch.
    Raises E_CONFIG, E_NOT_FOUND, E_EXISTS, E_DATA_FORMAT, E_DATA_EMPTY, E_DISK_FULL, E_PERMISSION.
    """
    _check_arguments(out, valid_fraction, shard_tokens)
    counts = counts if counts is not None else DocumentCounts()
    bos, eos = boundary_ids(tokenizer)
    sizes = DocumentSizes()

    def write(folder: Path, choice: HoldOut | None) -> dict[SplitName, SplitEntry]:
        documents = read_documents(inputs, paragraph_documents=paragraph_documents, counts=counts)
        unique = _without_copies(documents, seed, counts)
        if choice is None:
            assigned = _split_by_hash(unique, valid_fraction, sizes)
        else:
            assigned = _split_by_size(unique, choice, counts)
        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(SplitWriter(folder, name, tokenizer.vocab_size, shard_tokens))
                for name in index.SPLITS
            }
            encoder = Encoder(tokenizer, bos, eos, writers)
            for split, document in assigned:
                if encoder.add(split, document) and progress is not None:
                    progress(PrepareProgress(counts.input_bytes, encoder.tokens))
            encoder.flush()
            if progress is not None:
                progress(PrepareProgress(counts.input_bytes, encoder.tokens))
            if not encoder.tokens:
                raise _nothing_left(inputs, counts)
            return {name: writer.finish() for name, writer in writers.items()}

    with atomic_folder(out) as folder:
        splits = write(folder, None)
        choice = better_hold_out(sizes, valid_fraction, splits["valid"].bytes)
        if choice is not None and all(path.is_dir() or path.is_file() for path in inputs):  # not from a pipe
            for written in (*folder.glob("*.bin"), *folder.glob("*.offsets")):
                written.unlink()
            counts.reset()
            splits = write(folder, choice)
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
    identity = json.dumps([index.SCHEMA, NORMALIZATION, opened.sha256, stamps])
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


def _without_copies(
    documents: Iterable[Document], seed: int, counts: DocumentCounts
) -> Iterator[tuple[Document, float]]:
    """(document, split key) of the first of each text."""
    seen = SeenTexts()
    for document in documents:
        identity, key = fingerprint(document.text, seed)
        if seen.add(identity):
            yield document, key
        else:
            counts.drop("duplicate", document.source)


def _split_by_hash(
    documents: Iterable[tuple[Document, float]], valid_fraction: float, sizes: DocumentSizes
) -> Iterator[Assigned]:
    """(split, document) by hash alone; `sizes` is filled."""
    splitter = HashSplitter(valid_fraction)
    for document, key in documents:
        sizes.add(document, key)
        yield from splitter.assign(document, key)
    yield from splitter.finish()


def _split_by_size(
    documents: Iterable[tuple[Document, float]], choice: HoldOut, counts: DocumentCounts
) -> Iterator[Assigned]:
    """(split, document) by a choice that knows the sizes; the document that is cut is counted."""
    for document, key in documents:
        assigned = choice.assign(document, key)
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
