"""Documents to token ids in batches over every core, in bounded memory whatever the documents' sizes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any
from unicodedata import is_normalized

import numpy as np
import numpy.typing as npt

from ptbr_slm.data.known_words import KnownWords
from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import LLAMA_BPE_SPLIT, Tokenizer

BATCH_CHARACTERS = 1 << 18
"""Characters encoded at once; the tokenizers library holds some 40 bytes for each meanwhile."""

SEGMENT_CHARACTERS = 2_048
"""A long text is cut into pieces of this size. The tokenizers library is 1.5 times as fast on pieces of 1 to
4 thousand characters as on 32 thousand (2.0 and 1.3 MB a CPU second), and spreads them over the cores."""
KNOWN_CHARACTERS = 1 << 16
"""Pieces of a text whose words are looked up."""
_SEGMENT_BOUNDARY = re.compile(r"(?<=\n)(?=[^\s])|(?<=[^\W\d_])(?= [^\W\d_])")
"""After a newline run that a visible character follows, or before the one space between two letters.

`llama-bpe` (tokenizer.py) never matches across either: newlines end a piece, and a space between letters
begins one. A property test compares the tokens.
"""

_BOS_NAMES = ("<|bos|>", "<s>", "<|begin_of_text|>")
_EOS_NAMES = ("<|eos|>", "</s>", "<|end_of_text|>", "<|endoftext|>")


def boundary_ids(tokenizer: Tokenizer) -> tuple[int | None, int]:
    """(bos or None, eos) that surround a document; of a tokenizer that is not ours, its own.

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
    """Turns texts into the tokens of documents, with what begins and ends a document."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises E_TOKENIZER_INVALID where no token ends a text."""
        bos, eos = boundary_ids(tokenizer)
        self._tokenizer = tokenizer
        self._before = np.array([] if bos is None else [bos], dtype=np.uint32)
        self._after = np.array([eos], dtype=np.uint32)
        self._segmented = can_be_segmented(tokenizer)
        self._spells_all = (
            self._segmented and tokenizer.is_byte_level and tokenizer.added_ids <= tokenizer.special_ids
        )
        self._known = KnownWords.of(tokenizer)

    def encode(self, texts: Sequence[str]) -> Iterator[npt.NDArray[np.uint32]]:
        """The tokens of each text, in order; one text at a time is held, and `BATCH_CHARACTERS` of pieces."""
        documents = [list(self._pieces(text)) for text in texts]
        encoded = self._encode([piece for pieces in documents for piece, known in pieces if known is None])
        for pieces in documents:
            own = [next(encoded) if known is None else known.encode(piece) for piece, known in pieces]
            yield np.concatenate([self._before, *own, self._after])

    def _pieces(self, text: str) -> Iterator[tuple[str, KnownWords | None]]:
        """(a piece of `text`, what encodes it; None for the library)."""
        known = self._known
        if not self._segmented or known is None:
            for piece in segments(text) if self._segmented else [text]:
                yield piece, None
            return
        for part in segments(text, KNOWN_CHARACTERS):
            if known.covers(part):
                yield part, known
            else:
                for piece in segments(part):
                    yield piece, known if known.covers(piece) else None

    def spells(self, text: str, tokens: npt.NDArray[np.integer[Any]]) -> bool:
        """Whether `text_of(tokens)` is `text`, whose tokens they are.

        Known without decoding for a byte-level tokenizer like ours, which at most normalises to NFC. Others
        may write compatibility characters otherwise (NFKC), lose a first space, or what they have no token
        for.
        """
        if self._spells_all and is_normalized("NFC", text):
            return True
        return self.text_of(tokens) == text

    def text_of(self, tokens: npt.NDArray[np.integer[Any]]) -> str:
        """The text that `tokens` of a whole document say, without what begins and ends it."""
        return self._tokenizer.decode(tokens[len(self._before) : -1].tolist())

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


def can_be_segmented(tokenizer: Tokenizer) -> bool:
    """Whether `tokenizer` splits like ours, so that `segments` is exact (SentencePiece marks the start)."""
    body = json.loads(tokenizer.to_json())
    splitter = json.dumps(body.get("pre_tokenizer"))
    plain = (body.get("normalizer") or {"type": "NFC"}) == {"type": "NFC"}
    return plain and json.dumps(LLAMA_BPE_SPLIT) in splitter and '"add_prefix_space": true' not in splitter


def segments(text: str, characters: int = SEGMENT_CHARACTERS) -> list[str]:
    """`text` in pieces of about `characters`, longer where it has no boundary; joined, they give it back."""
    pieces, start = [], 0
    while len(text) - start > characters:
        boundary = _SEGMENT_BOUNDARY.search(text, start + characters)
        if boundary is None:
            break
        pieces.append(text[start : boundary.start()])
        start = boundary.start()
    pieces.append(text[start:])
    return pieces
