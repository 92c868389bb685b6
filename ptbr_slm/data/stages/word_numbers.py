"""The words of a text as numbers, so that NumPy counts them: `split_words` without its strings.

A process keeps one table: each piece between spaces has the numbers of its tokens, and each token its length
and kind. A text repeats its words, and texts repeat each other's, so nearly all that is left for a piece is
one look-up.
"""

from __future__ import annotations

import re
from array import array
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ptbr_slm.data.stages.words import split_piece

STOP_WORDS = frozenset(
    ["de", "a", "e", "o", "em", "do", "da", "que", "um", "no", "uma", "com", "para", "na", "é", "foi"]
)
"""FineWeb2, `configs/por_Latn.yml` at d0defb2."""
TERMINAL = (".", "!", "?", "‼", "‽", "⁇", "⁈", "⁉", "⸮", "⸼", "⹓", "⹔", "。", "｡", "！", "．", "？")
"""What ends a line: datatrove's TERMINAL_PUNCTUATION, without other scripts. A closing quote does not."""
_PUNCTUATION = frozenset(
    "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
    + "".join(TERMINAL)
).union(map(chr, (*range(9), *range(11, 32), *range(127, 160))))
"""A token of these alone is no word: datatrove's PUNCTUATION_SET."""
_LETTER = re.compile(r"[^\W\d_]")

WORD, LETTERS, STOP = 1, 2, 4
"""Kinds of a token, as bits: more than punctuation; with a letter; one of `STOP_WORDS`."""
MAX_PIECES, MAX_CHARACTERS = 1 << 17, 1 << 21
"""Pieces remembered, and characters of them and their tokens. A text may add more; before the next one the
table is emptied."""


class WordNumbers(NamedTuple):
    """The tokens of a text, in order. A number means the same token within this text only."""

    numbers: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int32]
    """Characters of each."""
    kinds: npt.NDArray[np.int8]
    """`WORD`, `LETTERS` and `STOP` of each."""


class _Table(dict[str, tuple[int, ...]]):
    """Piece between spaces -> the numbers of its tokens; filled on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: dict[str, int] = {}
        self.lengths = array("i")
        self.kinds = array("b")
        self.characters = 0

    def __missing__(self, piece: str) -> tuple[int, ...]:
        numbers = tuple(map(self._number, split_piece(piece)))
        self[piece] = numbers
        self.characters += len(piece)
        return numbers

    def _number(self, token: str) -> int:
        number = self.numbers.setdefault(token, len(self.numbers))
        if number == len(self.lengths):
            self.characters += len(token)
            self.lengths.append(len(token))
            self.kinds.append(_kind(token))
        return number


_table = _Table()


def number_words(text: str) -> WordNumbers:
    """The tokens of `text` as `split_words` finds them, as numbers."""
    global _table
    if len(_table) > MAX_PIECES or _table.characters > MAX_CHARACTERS:
        _table = _Table()
    numbers = np.fromiter(chain.from_iterable(map(_table.__getitem__, text.split())), np.int64)
    lengths = np.asarray(_table.lengths, np.int32)[numbers]
    return WordNumbers(numbers, lengths, np.asarray(_table.kinds, np.int8)[numbers])


def _kind(token: str) -> int:
    kind = 0
    if token.isalnum() or not _PUNCTUATION.issuperset(token):
        kind |= WORD
    if token.isalpha() or _LETTER.search(token) is not None:
        kind |= LETTERS
    return kind | STOP if token in STOP_WORDS else kind
