"""64-bit hashes of the words of a text and of its word n-grams, for finding texts that are nearly the same.

Words are compared without case, accents and punctuation: `avó` and `avô` are one word here, which harms no
comparison of whole texts. The hash is polynomial over the bytes of a word and, again, over the words of an
n-gram (Karp and Rabin, "Efficient randomized pattern-matching algorithms", IBM J. Res. Dev. 31(2), 1987),
modulo 2**64, so that NumPy computes all of a text at once. Nothing depends on the process or the machine.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt

NORMALIZATION = "NFKD, ASCII letters and digits, lower case"
"""How words are compared, for manifests."""

Hashes = npt.NDArray[np.uint64]

_BYTE_BASE = 0x9E3779B97F4A7C15
_WORD_BASE = 0xD6E8FEB86659FD93
_PIECE = 1 << 16
"""Bytes hashed at once; the tables of powers have this length."""
_SPACE = 0x20


def _translation(fold_digits: bool) -> bytes:
    table = bytearray([_SPACE] * 256)
    for code in (*range(ord("0"), ord("9") + 1), *range(ord("a"), ord("z") + 1)):
        table[code] = code
        table[ord(chr(code).upper())] = code
    if fold_digits:
        table[ord("0") : ord("9") + 1] = b"0" * 10
    return bytes(table)


_KEEP_DIGITS, _FOLD_DIGITS = _translation(False), _translation(True)
_SEPARATORS = "–—―…·•“”„«»‘"
"""Punctuation outside ASCII that may stand between two words without a space."""


def normalized_words(text: str, *, fold_digits: bool = False) -> bytes:
    """The words of `text` in lower-case ASCII, separated by one or more spaces.

    fold_digits: every digit becomes 0, so that texts which differ in dates and amounts are near copies.
    Letters outside the Latin alphabet are left out.
    """
    if not text.isascii():
        for separator in _SEPARATORS:  # much faster than str.translate
            text = text.replace(separator, " ")
        text = unicodedata.normalize("NFKD", text)
    return text.encode("ascii", "ignore").translate(_FOLD_DIGITS if fold_digits else _KEEP_DIGITS)


def word_hashes(words: bytes) -> Hashes:
    """A hash for each word of `words`, the result of `normalized_words`.

    A word above 64 KiB counts as several.
    """
    pieces: list[Hashes] = []
    start = 0
    while start < len(words):
        end = start + _PIECE
        if end < len(words):
            end = words.rfind(b" ", start, end) + 1 or end
        pieces.append(_hash_piece(words[start:end]))
        start = end
    return np.concatenate(pieces) if pieces else np.empty(0, np.uint64)


def ngram_hashes(words: Hashes, n: int) -> Hashes:
    """A hash for each run of `n` words, in the order of the text; empty where there are fewer words."""
    count = len(words) - n + 1
    if count < 1:
        return np.empty(0, np.uint64)
    total = np.zeros(count, np.uint64)
    for offset in range(n):
        total *= np.uint64(_WORD_BASE)
        total += words[offset : offset + count]
    return mixed(total)


def mixed(values: Hashes) -> Hashes:
    """`values` with every bit spread over all others (the finalizer of SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _hash_piece(words: bytes) -> Hashes:
    powers, inverses = _powers()
    letters = np.frombuffer(words, np.uint8)
    edges = np.diff((letters != _SPACE).astype(np.int8), prepend=0, append=0)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    prefix = np.zeros(len(letters) + 1, np.uint64)
    np.cumsum(letters * powers[: len(letters)], out=prefix[1:])
    return mixed((prefix[ends] - prefix[starts]) * inverses[starts])


@cache
def _powers() -> tuple[Hashes, Hashes]:
    """The powers of the base and of its inverse modulo 2**64, 0 to 65,535."""
    inverse = pow(_BYTE_BASE, -1, 2**64)
    tables = []
    for base in (_BYTE_BASE, inverse):
        table = np.full(_PIECE, base, np.uint64)
        table[0] = 1
        tables.append(np.cumprod(table, dtype=np.uint64))
    return tables[0], tables[1]
