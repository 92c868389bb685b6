"""Prompt-lookup drafts: the tokens that followed the last occurrence of the last n-gram.

Saxena (2023), https://github.com/apoorvumang/prompt-lookup-decoding; in transformers as
`prompt_lookup_num_tokens`. It pays where a text quotes itself or its prompt, and costs nothing where no
n-gram comes back. A draft is as long as pays best on this machine: with the chance p that a token is right
after those before it were, k tokens bring 1 + p + ... + p^k for one pass over k + 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from ptbr_slm.runtime.drafting.costs import StepCosts

_NGRAMS = (3, 2)
"""Tokens that must agree, the longer match first."""

_RIGHT, _PRIOR, _MEMORY = 0.75, 4.0, 32.0
"""The chance that a drafted token is right before any was seen, how many tokens that counts for, and how many
the running chance remembers."""

_LONGEST_PAUSE = 64
"""Tokens without a draft after many drafts of which nothing was right."""


class LookupDrafter:
    """Drafts for one growing text; their length follows from how many were right, and from what they cost."""

    def __init__(self, ids: Sequence[int], limit: int) -> None:
        """ids: the text, which grows outside (`push` tells); limit: tokens of a draft at most."""
        self._ids = ids
        self._limit = limit
        self._right, self._seen = _RIGHT, _PRIOR
        self._misses = self._pause = 0
        self._after: dict[tuple[int, ...], int] = {}
        self._known = 0
        self.push()

    def push(self) -> None:
        """The text has grown: note where each n-gram was followed by something."""
        for position in range(self._known, len(self._ids)):
            for size in _NGRAMS:
                if position >= size:
                    self._after[tuple(self._ids[position - size : position])] = position
        self._known = len(self._ids)

    def draft(self, limit: int, costs: StepCosts) -> list[int]:
        """At most `limit` tokens that may follow the text."""
        if self._pause:
            self._pause -= 1
            return []
        for size in _NGRAMS:
            start = self._after.get(tuple(self._ids[-size:]))
            if start is not None:
                most = min(self._limit, limit, len(self._ids) - start)
                return list(self._ids[start : start + self._length(most, costs)]) if most > 0 else []
        return []

    def learn(self, drafted: int, accepted: int, costs: StepCosts) -> None:
        """How many of a draft's tokens were right; pause after drafts of which none was."""
        for right in [1] * accepted + [0] * (accepted < drafted):
            self._seen = min(self._seen + 1, _MEMORY)
            self._right += (right - self._right) / self._seen
        self._misses = 0 if accepted else self._misses + 1
        self._pause = min(2**self._misses - 1, _LONGEST_PAUSE)

    def _length(self, most: int, costs: StepCosts) -> int:
        """Tokens, 1 to `most`, that bring most for what their pass costs."""
        best, length, brought, chance = 0.0, 1, 1.0, 1.0
        for size in range(1, most + 1):
            chance *= self._right
            brought += chance
            gain = brought / costs.relative(1 + size)
            if gain > best:
                best, length = gain, size
        return length
