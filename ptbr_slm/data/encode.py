"""Documents to token ids in batches over every core, in bounded memory whatever the documents' sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from ptbr_slm.data.read import Document
from ptbr_slm.data.segments import may_cut, segments
from ptbr_slm.data.shards import SplitWriter
from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import Tokenizer

BATCH_CHARACTERS = 1 << 18
"""Characters encoded at once; the tokenizers library holds some 40 bytes for each meanwhile."""

_BOS_NAMES = ("<|bos|>", "<s>", "<|begin_of_text|>")
_EOS_NAMES = ("<|eos|>", "</s>", "<|end_of_text|>", "<|endoftext|>")


def boundary_ids(tokenizer: Tokenizer) -> tuple[int | None, int]:
    """(bos or None, eos) that surround a document; a foreign tokenizer's own where it has them.

    Raises E_TOKENIZER_INVALID where no token ends a text.
    """
    bos = next((i for i in map(tokenizer.token_id, _BOS_NAMES) if i is not None), None)
    eos = next((i for i in map(tokenizer.token_id, _EOS_NAMES) if i is not None), None)
    if eos is None:
        raise SlmError(
            "E_TOKENIZER_INVALID",
            "o tokenizador não tem um token de fim de texto que conheçamos.",
            where=", ".join(_EOS_NAMES),
            hint="Treine um com:  ptbr-slm tokenizer train TEXTOS -o tokenizer.json",
        )
    return bos, eos


class Encoder:
    """Collects documents and writes them in order, a batch at a time."""

    def __init__(
        self, tokenizer: Tokenizer, bos: int | None, eos: int, writers: dict[str, SplitWriter]
    ) -> None:
        self._tokenizer, self._writers = tokenizer, writers
        self._before = np.array([] if bos is None else [bos], dtype=np.uint32)
        self._after = np.array([eos], dtype=np.uint32)
        self._cut = may_cut(tokenizer)
        self._batch: list[tuple[str, Document]] = []
        self._characters = 0
        self.tokens = 0
        """Written so far."""

    def add(self, part: str, document: Document) -> None:
        """Take a document for `part`; a full batch is written."""
        self._batch.append((part, document))
        self._characters += len(document.text)
        if self._characters >= BATCH_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Encode and write what is waiting."""
        pieces = [segments(document.text) if self._cut else [document.text] for _, document in self._batch]
        encoded = self._encode([piece for document in pieces for piece in document])
        for (part, document), own in zip(self._batch, pieces, strict=True):
            tokens = np.concatenate([self._before, *islice(encoded, len(own)), self._after])
            text = document.text
            self._writers[part].write(tokens, text_bytes=len(text.encode()), words=len(text.split()))
            self.tokens += len(tokens)
        self._batch.clear()
        self._characters = 0

    def _encode(self, pieces: Sequence[str]) -> Iterator[npt.NDArray[np.uint32]]:
        """The ids of each piece; encoded `BATCH_CHARACTERS` at a time, as one document may be long."""
        start = 0
        while start < len(pieces):
            stop, characters = start, 0
            while stop < len(pieces) and characters < BATCH_CHARACTERS:
                characters += len(pieces[stop])
                stop += 1
            for ids in self._tokenizer.encode_batch(pieces[start:stop]):
                yield np.array(ids, dtype=np.uint32)
            start = stop
