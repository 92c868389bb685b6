"""Texts in, prepared data out: read, clean, drop copies, split, tokenize in batches, write shards.

`read_documents` is the part that looks at one document at a time; `prepare` is all of it; `open_or_prepare`
is what a command does with its `--data`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from ptbr_slm.data import index
from ptbr_slm.data.batches import raw_documents
from ptbr_slm.data.document import Document, DocumentCounts, Skipped, describe_dropped
from ptbr_slm.data.duplicates.signatures import NearDuplicateSettings
from ptbr_slm.data.encode import boundary_ids
from ptbr_slm.data.index import Index
from ptbr_slm.data.ingest import PrepareProgress, ProgressCallback, count, ingest
from ptbr_slm.data.prepared import PreparedData, is_prepared
from ptbr_slm.data.presets import DEFAULT, Preset, preset
from ptbr_slm.data.process import outcomes
from ptbr_slm.data.read.files import STDIN, InputFile, input_files, list_files
from ptbr_slm.data.read.formats import TEXT_FIELD
from ptbr_slm.data.recipe import Recipe, Source
from ptbr_slm.data.select import describe, select, write_splits
from ptbr_slm.data.shards import SHARD_TOKENS, token_dtype
from ptbr_slm.data.sources.hub_inputs import local_inputs
from ptbr_slm.data.stages.clean import NORMALIZATION
from ptbr_slm.data.staging import Staging
from ptbr_slm.errors import Exit, SlmError, os_errors
from ptbr_slm.storage.atomic import atomic_folder, may_replace, write_text
from ptbr_slm.storage.output import make_folder, real_output, remove_made
from ptbr_slm.text import UTF16_HINT, quoted
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.version import __version__

NEAR_DUPLICATES = NearDuplicateSettings()


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
    paths = local_inputs(inputs).paths
    source = Source(paths, paragraph_documents=paragraph_documents, text_field=text_field)
    for raw, _, _, input_bytes in raw_documents((source,), ((0, file) for file in list_files(paths))):
        counts.input_bytes = input_bytes
        if raw is None:
            continue
        if isinstance(raw.found, Skipped):
            counts.skip(raw.found)
            continue
        for outcome in outcomes(stages, raw.found, by_paragraph=raw.by_paragraph):
            count(outcome, counts)
            if outcome.dropped is None:
                yield outcome.document


def prepare(
    inputs: Sequence[Path],
    out: Path,
    tokenizer: Tokenizer,
    *,
    recipe: Recipe | None = None,
    valid_fraction: float = 0.01,
    paragraph_documents: bool = False,
    near_duplicates: NearDuplicateSettings | None = NEAR_DUPLICATES,
    drop_near_duplicates: bool = False,
    seed: int = 0,
    shard_tokens: int = SHARD_TOKENS,
    workers: int = 1,
    counts: DocumentCounts | None = None,
    progress: ProgressCallback | None = None,
) -> PreparedData:
    """Turn texts into the prepared folder `out`, atomically.

    inputs: files, folders or hf:// names, see `read_documents`; or none, and `recipe` names the sources.
    near_duplicates: how near copies are found, which never fall on both sides of the split; None looks for
    exact copies only, which are always dropped. drop_near_duplicates: keep the first of near copies only.
    valid_fraction: share of the text held out, 0 to 0.5: whole documents, and where these would be more than
    twice or less than half of it, the end of a long one (`hold_out`).
    shard_tokens: tokens in a shard, at least one document. workers: processes that clean and tokenize; the
    result does not depend on their number. counts: filled with what was left out and why.
    A run that was killed goes on where its last checkpoint was when the same call is made again (`staging`).
    Memory does not grow with the input, but for 20 to 40 bytes a document (copies, sizes) and open batches.
    Disk: the tokens are written twice, beside `out` first.
    Raises E_CONFIG, E_NOT_FOUND, E_EXISTS, E_DATA_FORMAT, E_DATA_EMPTY, E_DISK_FULL, E_PERMISSION, E_MEMORY,
    and E_DEPENDENCY where near copies are looked for and rensa is not installed.
    """
    _check_arguments(out, valid_fraction, shard_tokens)
    counts = counts if counts is not None else DocumentCounts()
    recipe = recipe or Recipe(
        (Source(tuple(inputs), paragraph_documents=paragraph_documents),),
        near_duplicates,
        drop_near_duplicates,
    )
    recipe = recipe.with_local_inputs()
    bos, eos = boundary_ids(tokenizer)
    dtype = token_dtype(tokenizer.vocab_size)
    files = [(i, file) for i, source in enumerate(recipe.sources) for file in list_files(source.inputs)]
    made = make_folder(out.absolute().parent)
    try:
        identity = _identity(recipe, files, tokenizer, seed)
        with os_errors(out), Staging.open(real_output(out), identity, dtype) as staging:
            collected = ingest(recipe, files, tokenizer, seed, workers, staging, counts, progress)
            if not staging.documents:
                raise _nothing_left([path for source in recipe.sources for path in source.inputs], counts)
            selection = select(staging, recipe, collected, tokenizer, valid_fraction, counts)
            with atomic_folder(out) as folder:
                splits = write_splits(staging, selection, folder, tokenizer, shard_tokens)
                described = describe(staging, selection, recipe, folder)
                write_text(folder / "tokenizer.json", tokenizer.to_json())
                if progress is not None:
                    written = sum(split.tokens for split in splits.values())
                    progress(PrepareProgress(counts.input_bytes, written))
                index.write_index(
                    folder,
                    Index(
                        dtype=dtype.name,
                        vocab_size=tokenizer.vocab_size,
                        tokenizer_sha256=tokenizer.sha256,
                        bos_id=bos,
                        eos_id=eos,
                        normalization=NORMALIZATION,
                        valid_fraction=valid_fraction,
                        paragraph_documents=paragraph_documents,
                        seed=seed,
                        near_duplicates=selection.near_duplicates,
                        splits=splits,
                        dropped=dict(counts.dropped),
                        repaired=dict(counts.repaired),
                        recipe=described,
                    ),
                )
    except BaseException:
        remove_made(made)
        raise
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
    source = Source((path,)).with_local_inputs()
    files = [(file.name if source.hub else str(file.path.resolve()), file.path.stat())
             for file in input_files(source.inputs)]  # fmt: skip
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
    return prepare([], folder, opened, recipe=Recipe((source,), NEAR_DUPLICATES), progress=progress)


def _identity(
    recipe: Recipe, files: Sequence[tuple[int, InputFile | Skipped]], tokenizer: Tokenizer, seed: int
) -> str:
    """What the staged documents depend on: inputs as they are now, stages, tokenizer, version."""
    stamps: list[object] = []
    for source, file in files:
        if isinstance(file, Skipped) or file.path == STDIN or not file.path.is_file():
            stamps.append([source, str(file)])
        else:
            stat = file.path.stat()
            stamps.append([source, str(file.path.absolute()), stat.st_size, stat.st_mtime_ns])
    if any(isinstance(file, InputFile) and not file.path.is_file() for _, file in files):
        stamps.append(os.getpid())  # a pipe cannot be read again
    body = [__version__, NORMALIZATION, tokenizer.sha256, seed, recipe.description(), stamps]
    return hashlib.sha256(json.dumps(body).encode("utf-8", "surrogatepass")).hexdigest()


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
