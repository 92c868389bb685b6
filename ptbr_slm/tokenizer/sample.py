"""A sample of a stream of texts that fits a budget of bytes, the same for the same seed.

Texts are cut into pieces of a page or so, each piece draws a random key, and those with the lowest keys stay
(bottom-k sampling: Cohen and Kaplan, 2007, "Summarizing data using bottom-k sketches"). Every piece has the
same chance, wherever it lies in the stream, and one long text cannot fill the budget alone.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Iterator

from ptbr_slm.errors import SlmError

PIECE_CHARACTERS = 16_384
"""A piece ends before the last white space of its second half, or here where there is none."""


def sample_texts(texts: Iterable[str], budget: int, *, seed: int = 0) -> Iterator[str]:
    """Pieces of `texts` of at most `budget` UTF-8 bytes together, in the order of the stream.

    `texts` is read to its end before this returns; neighbouring pieces of a text come back joined, so that
    texts that fit come back whole. Memory: the budget, and the text being read. Raises E_CONFIG.
    """
    if budget < 1:
        raise SlmError(
            "E_CONFIG",
            "a amostra precisa de ao menos um byte.",
            where="--sample",
            hint="Use --sample 200MB, ou --sample 0 para ler tudo.",
        )
    longest = min(PIECE_CHARACTERS, max(1, budget // 16))
    draw = random.Random(seed).random
    kept: list[tuple[float, int, int, bytes]] = []  # a heap: the highest key, negated, comes out first
    held, limit, order = 0, 1.0, 0
    for number, text in enumerate(texts):
        for piece in pieces(text, longest):
            order += 1
            key = draw()
            if key >= limit:
                continue
            encoded = piece.encode("utf-8", "surrogatepass")
            heapq.heappush(kept, (-key, order, number, encoded))
            held += len(encoded)
            while held > budget:
                highest, _, _, dropped = heapq.heappop(kept)
                held -= len(dropped)
                limit = -highest
    return _joined(sorted((order, number, piece) for _, order, number, piece in kept))


def pieces(text: str, longest: int = PIECE_CHARACTERS) -> Iterator[str]:
    """`text` in pieces of at most `longest` characters, cut before white space where there is some."""
    start = 0
    while len(text) - start > longest:
        middle, end = start + longest // 2, start + longest
        cut = max(text.rfind("\n", middle, end), text.rfind(" ", middle, end))
        yield text[start : cut if cut > start else end]
        start = cut if cut > start else end
    yield text[start:]


def _joined(kept: list[tuple[int, int, bytes]]) -> Iterator[str]:
    """The texts of (order, text number, piece), where pieces that follow each other become one text."""
    run: list[bytes] = []
    last = (-1, -1)
    for order, number, piece in kept:
        if run and (order, number) != (last[0] + 1, last[1]):
            yield b"".join(run).decode("utf-8", "surrogatepass")
            run = []
        run.append(piece)
        last = (order, number)
    if run:
        yield b"".join(run).decode("utf-8", "surrogatepass")
