"""Texts in, prepared data out: read, drop copies, split, tokenize in batches, write shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ptbr_slm.data import index
from ptbr_slm.data.clean import NORMALIZATION
from ptbr_slm.data.drops import REASONS, DropCounts
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.read import Document, read_documents
from ptbr_slm.data.segments import may_cut, segments
from ptbr_slm.data.shards import SHARD_TOKENS, SplitWriter, token_dtype
from ptbr_slm.data.split import SeenTexts, Splitter, fingerprint
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.atomic import atomic_folder, remove_leftovers
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.version import __version__

BATCH_CHARACTERS = 1 << 20
"""Characters encoded at once; the tokenizers library holds some 30 bytes for each meanwhile."""

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

    valid_fraction: share of the documents held out, 0 to 0.5; at least one where there are two or more.
    shard_tokens: tokens in a shard, at least one document. drops: filled with what was left out and why.
    Memory does not grow with the input, but for 8 to 16 bytes a document (copies) and the open batch.
    Raises E_CONFIG, E_NOT_FOUND, E_EXISTS, E_DATA_FORMAT, E_DATA_EMPTY, E_DISK_FULL, E_PERMISSION.
    """
    _check_arguments(out, valid_fraction, shard_tokens)
    counts = drops if drops is not None else DropCounts()
    bos, eos = boundary_ids(tokenizer)
    dtype = token_dtype(tokenizer.vocab_size)
    documents = read_documents(inputs, paragraph_documents=paragraph_documents, drops=counts)
    with atomic_folder(out) as folder:
        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(SplitWriter(folder, name, dtype, shard_tokens))
                for name in index.SPLITS
            }
            encoder = _Encoder(tokenizer, bos, eos, writers)
            for part, document in _split(documents, counts, valid_fraction, seed):
                encoder.add(part, document)
                if progress is not None:
                    progress(counts.input_bytes, f"{encoder.tokens} tokens")
            encoder.flush()
            if not encoder.tokens:
                raise _nothing_left(inputs, counts)
            splits = {name: writer.finish() for name, writer in writers.items()}
        tokenizer.save(folder / "tokenizer.json")
        body = {
            "ptbr_slm": __version__,
            "dtype": dtype.name,
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
    remove_leftovers(out.parent)
    return PreparedData.open(out, verify=False)


def boundary_ids(tokenizer: Tokenizer) -> tuple[int | None, int]:
    """(bos or None, eos) that surround a document; a foreign tokenizer's own where it has them.

    Raises E_TOKENIZER_INVALID where no token ends a text.
    """
    if tokenizer.bos_id is not None and tokenizer.eos_id is not None:
        return tokenizer.bos_id, tokenizer.eos_id
    names = ("<|bos|>", "<s>", "<|begin_of_text|>"), ("<|eos|>", "</s>", "<|end_of_text|>", "<|endoftext|>")
    bos, eos = (next((i for i in map(tokenizer.token_id, known) if i is not None), None) for known in names)
    if eos is None:
        raise SlmError(
            "E_TOKENIZER_INVALID",
            "o tokenizador não tem um token de fim de texto que conheçamos.",
            where=", ".join(names[1]),
            hint="Treine um com:  ptbr-slm tokenizer train TEXTOS -o tokenizer.json",
        )
    return bos, eos


class _Encoder:
    """Collects documents and writes them in order, a batch at a time."""

    def __init__(
        self, tokenizer: Tokenizer, bos: int | None, eos: int, writers: dict[str, SplitWriter]
    ) -> None:
        self._tokenizer, self._bos, self._eos, self._writers = tokenizer, bos, eos, writers
        self._cut = may_cut(tokenizer)
        self._batch: list[tuple[str, Document]] = []
        self._characters = 0
        self.tokens = 0

    def add(self, part: str, document: Document) -> None:
        """Take a document for `part`; a full batch is written."""
        self._batch.append((part, document))
        self._characters += len(document.text)
        if self._characters >= BATCH_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Encode and write what is waiting."""
        for (part, document), ids in zip(self._batch, self._encode(), strict=True):
            tokens = np.fromiter(ids, dtype=np.int64)
            self._writers[part].write(
                tokens, text_bytes=len(document.text.encode()), words=len(document.text.split())
            )
            self.tokens += len(tokens)
        self._batch.clear()
        self._characters = 0

    def _encode(self) -> Iterator[list[int]]:
        """The ids of each waiting document. Long ones are cut where no token crosses, to use every core."""
        pieces = [segments(document.text) if self._cut else [document.text] for _, document in self._batch]
        encoded = iter(self._tokenizer.encode_batch([piece for document in pieces for piece in document]))
        for document in pieces:
            ids = [] if self._bos is None else [self._bos]
            for _ in document:
                ids.extend(next(encoded))
            ids.append(self._eos)
            yield ids


def _split(
    documents: Iterable[Document], drops: DropCounts, valid_fraction: float, seed: int
) -> Iterator[tuple[str, Document]]:
    """(part, document), copies dropped."""
    seen, splitter = SeenTexts(), Splitter(valid_fraction)
    for document in documents:
        identity, place = fingerprint(document.text, seed)
        if seen.add(identity):
            yield from splitter.assign(document, place)
        else:
            drops.drop("duplicate", document.source)
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
    if out.exists() and not (out.is_dir() and ((out / index.NAME).is_file() or not any(out.iterdir()))):
        raise SlmError(
            "E_EXISTS",
            "o destino já existe e não é uma pasta de dados preparados: não vou substituí-lo.",
            where=out,
            hint="Escolha outra pasta em --output.",
        )


def _nothing_left(inputs: Sequence[Path], drops: DropCounts) -> SlmError:
    reasons = "; ".join(f"{count} × {REASONS[reason]}" for reason, count in drops.dropped.most_common())
    return SlmError(
        "E_DATA_EMPTY",
        f"nenhum texto aproveitável ({reasons or 'nenhum arquivo de texto'}).",
        where=", ".join(map(str, inputs)),
        hint="Aponte para arquivos .txt, .jsonl ou .parquet em UTF-8 (iconv -f latin1 -t utf8 converte).",
    )
