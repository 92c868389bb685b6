"""Texts in, prepared data out: read, drop copies, split, tokenize in batches, write shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ptbr_slm.data import index
from ptbr_slm.data.clean import NORMALIZATION
from ptbr_slm.data.drops import DropCounts, describe_dropped
from ptbr_slm.data.encode import Encoder, boundary_ids
from ptbr_slm.data.hold_out import HoldOut, Survey, better_choice
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.read import Document, read_documents
from ptbr_slm.data.shards import SHARD_TOKENS, SplitWriter, token_dtype
from ptbr_slm.data.split import SeenTexts, Splitter, fingerprint
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.atomic import atomic_folder, may_replace, write_text
from ptbr_slm.text import UTF16_HINT
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.version import __version__

ProgressCallback = Callable[[float, str], None]
"""(bytes of the input files read, short status) -> None."""


def prepare(
    inputs: Sequence[Path],
    out: Path,
    tokenizer: Tokenizer,
    *,
    valid_fraction: float = 0.01,
    paragraph_documents: bool = False,
    seed: int = 0,
    shard_tokens: int = SHARD_TOKENS,
    drops: DropCounts | None = None,
    progress: ProgressCallback | None = None,
) -> PreparedData:
    """Turn `inputs` (files or folders, see `read_documents`) into the prepared folder `out`, atomically.

    valid_fraction: share of the text held out, 0 to 0.5: whole documents, and where these would be more than
    twice or less than half of it, the end of a long one (`hold_out`). The texts are read twice then.
    shard_tokens: tokens in a shard, at least one document. drops: filled with what was left out and why.
    Memory does not grow with the input, but for 20 to 28 bytes a document (copies, sizes) and the open batch.
    Raises E_CONFIG, E_NOT_FOUND, E_EXISTS, E_DATA_FORMAT, E_DATA_EMPTY, E_DISK_FULL, E_PERMISSION.
    """
    _check_arguments(out, valid_fraction, shard_tokens)
    counts = drops if drops is not None else DropCounts()
    bos, eos = boundary_ids(tokenizer)
    survey = Survey()

    def parts(choice: HoldOut | None) -> Iterator[tuple[str, Document]]:
        documents = read_documents(inputs, paragraph_documents=paragraph_documents, drops=counts)
        return _split(documents, counts, valid_fraction, seed, survey, choice)

    def write(folder: Path, choice: HoldOut | None) -> dict[str, dict[str, Any]]:
        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(SplitWriter(folder, name, tokenizer.vocab_size, shard_tokens))
                for name in index.SPLITS
            }
            encoder = Encoder(tokenizer, bos, eos, writers)
            for part, document in parts(choice):
                encoder.add(part, document)
                if progress is not None:
                    progress(counts.input_bytes, f"{encoder.tokens} tokens")
            encoder.flush()
            if not encoder.tokens:
                raise _nothing_left(inputs, counts)
            return {name: writer.finish() for name, writer in writers.items()}

    with atomic_folder(out) as folder:
        splits = write(folder, None)
        choice = better_choice(survey, valid_fraction, splits["valid"]["bytes"])
        if choice is not None and all(path.is_dir() or path.is_file() for path in inputs):  # not from a pipe
            for written in (*folder.glob("*.bin"), *folder.glob("*.offsets")):
                written.unlink()
            counts.start_again()
            splits = write(folder, choice)
        write_text(folder / "tokenizer.json", tokenizer.to_json())
        body = {
            "ptbr_slm": __version__,
            "dtype": token_dtype(tokenizer.vocab_size).name,
            "vocab_size": tokenizer.vocab_size,
            "tokenizer_sha256": tokenizer.sha256,
            "bos_id": bos,
            "eos_id": eos,
            "normalization": NORMALIZATION,
            "valid_fraction": valid_fraction,
            "paragraph_documents": paragraph_documents,
            "seed": seed,
            "splits": splits,
            "dropped": dict(counts.dropped),
            "repaired": dict(counts.repaired),
        }
        index.write_index(folder, body)
    return PreparedData.open(out, verify=False)


def _split(
    documents: Iterable[Document],
    drops: DropCounts,
    valid_fraction: float,
    seed: int,
    survey: Survey,
    choice: HoldOut | None,
) -> Iterator[tuple[str, Document]]:
    """(part, document), copies dropped; without a choice, by hashes alone, `survey` filled."""
    seen, splitter = SeenTexts(), Splitter(valid_fraction)
    for document in documents:
        identity, place = fingerprint(document.text, seed)
        if not seen.add(identity):
            drops.drop("duplicate", document.source)
        elif choice is not None:
            yield from choice.assign(document, place, drops)
        else:
            survey.add(document, place)
            yield from splitter.assign(document, place)
    yield from splitter.finish()


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


def _nothing_left(inputs: Sequence[Path], drops: DropCounts) -> SlmError:
    reasons = describe_dropped(drops.dropped)
    convert = UTF16_HINT if drops.dropped["utf16"] else "iconv -f latin1 -t utf-8 ANTIGO > NOVO"
    return SlmError(
        "E_DATA_EMPTY",
        f"nenhum texto aproveitável ({reasons or 'nenhum arquivo de texto'}).",
        where=", ".join(map(str, inputs)),
        hint=f"Aponte para arquivos .txt, .jsonl ou .parquet em UTF-8 (para converter:  {convert}).",
    )
