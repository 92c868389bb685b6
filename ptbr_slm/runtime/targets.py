"""Tokens whose probabilities are asked for, and what is found: the currency of scoring.

An engine answers a `ScoringSession`: it computes logits only at the positions that are asked for and returns
one number a token, so that no (T, V) array leaves it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

MAX_BRANCHES = 24
"""Branches run together: a product of 24 rows costs each of them 1/8 of what one row alone costs (fp32)."""

BRANCH_BYTES = 128 << 20
"""Limit for the keys and values of all branches: 24 of 256 tokens of an 85m in fp32."""

_ROWS_AT_ONCE = 16
"""Rows of logits normalised at once: 2 MiB at 32,000 tokens, which a core's cache holds."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Tokens asked for; several may be asked for at one position."""

    after: Ids
    """(N,) index, among the tokens that are run, of the token that each one follows."""
    tokens: Ids
    """(N,) the ids."""

    @classmethod
    def following(cls, first: int, tokens: Sequence[int]) -> Targets:
        """Each of `tokens` after one position, from `first` on."""
        return cls(np.arange(first, first + len(tokens)), np.array(tokens, dtype=np.int64))

    def within(self, start: int, stop: int) -> Targets:
        """Those after the positions `start` to `stop` - 1, with positions counted from `start`."""
        inside = (self.after >= start) & (self.after < stop)
        return Targets(self.after[inside] - start, self.tokens[inside])

    def positions(self) -> tuple[Ids, Ids]:
        """(K,) the different positions in rising order, and for each target the row of its position (N,)."""
        found, rows = np.unique(self.after, return_inverse=True)
        return found, rows


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What is found for N targets."""

    logprobs: npt.NDArray[np.float64]
    """(N,) nats."""
    greedy: npt.NDArray[np.bool_]
    """(N,) whether no token is more probable; of equals, the first one counts."""

    def part(self, start: int, stop: int | None) -> TokenScores:
        """Those of the targets `start` to `stop` - 1."""
        return TokenScores(self.logprobs[start:stop], self.greedy[start:stop])

    @classmethod
    def concatenated(cls, parts: Sequence[TokenScores]) -> TokenScores:
        """All of them in order."""
        return cls(
            np.concatenate([part.logprobs for part in parts] or [np.zeros(0)]),
            np.concatenate([part.greedy for part in parts] or [np.zeros(0, dtype=np.bool_)]),
        )


class ScoringSession(Protocol):
    """One text (the trunk) and branches off it, in slots of their own over an engine's weights.

    Each method runs the model at most once. It needs the engine for itself meanwhile.
    """

    branches_free: int
    """Branches that can still be added before the next `step`."""
    branch_tokens: int
    """Tokens up to which a branch is cheaper than `append` and `truncate`; 0 where it never is."""
    texts_tokens: int
    """Tokens that one call of `texts` may have, padding included; 0 where texts are not run together."""

    def prepare(self, longest: int) -> None:
        """Empty everything; from now on no text has more than `longest` tokens."""

    def truncate(self, length: int) -> None:
        """Forget the trunk's tokens from `length` on."""

    def append(self, tokens: Sequence[int], targets: Targets) -> TokenScores:
        """Append tokens to the trunk."""

    def branch(self, tokens: Sequence[int], targets: Targets) -> None:
        """Add a branch: these tokens after what the trunk holds now. Runs nothing; the trunk stays."""

    def step(self) -> bool:
        """Run the branches a little further; whether there is more to run."""

    def take(self) -> list[TokenScores]:
        """The scores of all branches, which are run, in the order they were added; there are none after."""

    def texts(self, texts: Sequence[Sequence[int]], targets: Sequence[Targets]) -> list[TokenScores]:
        """Run whole texts side by side, apart from trunk and branches."""

    def close(self) -> None:
        """Free the memory."""


def score_rows(logits: Floats, rows: Ids, tokens: Ids) -> TokenScores:
    """Log probabilities of tokens (N,) under logits (K, V), each under the row (N,) that is its own."""
    peaks, logs = np.empty(len(logits)), np.empty(len(logits))
    best = np.empty(len(logits), dtype=np.int64)
    for start in range(0, len(logits), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        block = logits[part]
        best[part] = block.argmax(axis=1)
        peak = block[np.arange(len(block)), best[part]]
        weights = np.exp(block - peak[:, None])
        peaks[part], logs[part] = peak, np.log(weights.sum(axis=1, dtype=np.float64))
    return TokenScores(logits[rows, tokens] - peaks[rows] - logs[rows], best[rows] == tokens)


def branch_limit(slot_bytes: int) -> int:
    """Branches that `BRANCH_BYTES` allow, where each takes `slot_bytes`."""
    return min(MAX_BRANCHES, BRANCH_BYTES // slot_bytes)
