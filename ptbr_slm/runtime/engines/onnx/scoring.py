"""Scoring on ONNX Runtime: a trunk and branches as slots of KV caches apart from those that generate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ptbr_slm.config import ModelConfig
from ptbr_slm.runtime.engines.onnx.bindings import PrefillBinding, RowsBinding
from ptbr_slm.runtime.engines.onnx.flavours import Flavour
from ptbr_slm.runtime.engines.onnx.kv_cache import KVCaches
from ptbr_slm.runtime.engines.onnx.providers.memory import run_errors
from ptbr_slm.runtime.engines.onnx.providers.session import ProviderSession
from ptbr_slm.runtime.protocol import PREFILL_CHUNK, bucket
from ptbr_slm.runtime.targets import Floats, Ids, Targets, TokenScores, branch_limit, score_rows

_BRANCH_TOKENS = 16
"""Where branches, a token a step, stop being cheaper than one run each (85m in fp32)."""

_FEWEST_BRANCHES = 4
"""Below as many, a step costs as much as the runs it replaces."""

_TRUNK = 0


@dataclass(eq=False, slots=True)
class _Branch:
    tokens: Sequence[int]
    targets: Targets
    slot: int
    done: int = 0
    """Tokens that were run."""
    parts: list[tuple[Ids, TokenScores]] = field(default_factory=list)
    """Indices of targets, and their scores."""


class OnnxScoring:
    """`ScoringSession` over an export's session.

    Branches advance in step, one token each: GroupQueryAttention takes more than one token after a past only
    for a single row. Texts run from the beginning, where it takes rows of any lengths, padded on the right.

    The quantised kernels take the tokens of a row in pairs and round one that is left over another way (0.2
    nats of a token on a SmolLM2-135M in int8). There every run has an even number of tokens and no branches,
    so that a score is the same to the last bit whatever else is run.
    """

    branches_free: int
    branch_tokens: int
    texts_tokens: int
    _trunk_binding: PrefillBinding | None
    _row_bindings: dict[int, RowsBinding]

    def __init__(
        self,
        session: ProviderSession,
        flavour: Flavour,
        config: ModelConfig,
        dtype: type[np.generic],
        *,
        in_pairs: bool,
    ) -> None:
        """in_pairs: whether a token alone is computed another way than two."""
        self._session, self._flavour, self._config = session, flavour, config
        self._caches = KVCaches(
            config, session.memory, dtype, full_context=session.full_context_caches, idle_bytes=0
        )
        self._multiple = 2 if in_pairs else 1
        self._token_bytes = 2 * config.num_layers * config.kv_size * np.dtype(dtype).itemsize
        self._allocation = -1
        self._branches: list[_Branch] = []
        self._logits = np.empty((0, config.vocab_size), dtype=np.float32)
        self.prepare(1)

    def prepare(self, longest: int) -> None:
        """See `ScoringSession.prepare`."""
        capacity = bucket(longest + 1, self._config.max_seq_len)  # and one to make tokens even
        together = self._flavour.rows is not None and self._session.memory.shared
        limit = branch_limit(capacity * self._token_bytes) if together else 0
        self._limit = self.branches_free = limit if limit >= _FEWEST_BRANCHES else 0
        self.branch_tokens = _BRANCH_TOKENS if self._limit and self._multiple == 1 else 0
        self.texts_tokens = PREFILL_CHUNK if self._limit else 0
        self._branches = []
        self._caches.reset(1 + self._limit, self._config.max_seq_len)
        self._caches.ensure(longest)

    def truncate(self, length: int) -> None:
        """See `ScoringSession.truncate`."""
        self._caches.truncate(_TRUNK, length)

    def append(self, tokens: Sequence[int], targets: Targets) -> TokenScores:
        """See `ScoringSession.append`."""
        self._refresh()
        wanted, rows = targets.positions()
        length = int(self._caches.lengths[_TRUNK]) + len(tokens)
        padding = -len(tokens) % self._multiple if length < self._caches.capacity else 0
        # A graph without logits is not a case that it knows.
        positions = np.zeros(max(1, self._even(len(wanted))), dtype=np.int64)
        positions[: len(wanted)] = wanted
        logits = self._room_for(len(positions))
        with run_errors():
            self._trunk.run(np.array([*tokens, *[0] * padding], dtype=np.int64), positions, logits)
        self.truncate(length)
        return score_rows(logits[: len(wanted)], rows, targets.tokens)

    def branch(self, tokens: Sequence[int], targets: Targets) -> None:
        """See `ScoringSession.branch`."""
        slot = 1 + len(self._branches)
        self._caches.copy_prefix(_TRUNK, slot, int(self._caches.lengths[_TRUNK]))
        self._branches.append(_Branch(tokens, targets, slot))
        self.branches_free -= 1

    def step(self) -> bool:
        """See `ScoringSession.step`."""
        running = [branch for branch in self._branches if branch.done < len(branch.tokens)]
        if not running:
            return False
        running = self._neighbours(running)
        count = len(running)
        tokens = np.array([[branch.tokens[branch.done]] for branch in running], dtype=np.int64)
        logits = self._room_for(count)
        once = np.ones(count, dtype=np.int32)
        with run_errors():
            self._rows(count).run(tokens, once, np.zeros((count, 1), dtype=np.int64), logits[:, None])
        found = [np.flatnonzero(branch.targets.after == branch.done) for branch in running]
        rows = np.repeat(np.arange(count), [len(indices) for indices in found])
        wanted = np.concatenate(
            [branch.targets.tokens[indices] for branch, indices in zip(running, found, strict=True)]
        )
        scores = score_rows(logits, rows, wanted)
        start = 0
        for branch, indices in zip(running, found, strict=True):
            branch.parts.append((indices, scores.part(start, start + len(indices))))
            branch.done += 1
            start += len(indices)
        return any(branch.done < len(branch.tokens) for branch in running)

    def take(self) -> list[TokenScores]:
        """See `ScoringSession.take`."""
        results = []
        for branch in self._branches:
            order = np.argsort(np.concatenate([indices for indices, _ in branch.parts]), kind="stable")
            found = TokenScores.concatenated([scores for _, scores in branch.parts])
            results.append(TokenScores(found.logprobs[order], found.greedy[order]))
        self._branches, self.branches_free = [], self._limit
        return results

    def texts(self, texts: Sequence[Sequence[int]], targets: Sequence[Targets]) -> list[TokenScores]:
        """See `ScoringSession.texts`. In the slots of the branches, of which there are none meanwhile."""
        count = len(texts)
        for slot in range(1, 1 + count):
            self._caches.truncate(slot, 0)
        counts = np.array([len(text) for text in texts], dtype=np.int32)
        if counts.max() < self._caches.capacity:
            counts[counts.argmax()] += -counts.max() % self._multiple
        tokens = np.zeros((count, counts.max()), dtype=np.int64)
        asked = [each.positions() for each in targets]
        most = self._even(max(len(positions) for positions, _ in asked))
        wanted = np.zeros((count, most), dtype=np.int64)
        for row, (text, (positions, _)) in enumerate(zip(texts, asked, strict=True)):
            tokens[row, : len(text)] = text
            wanted[row, : len(positions)] = positions
        logits = self._room_for(count * most)
        shaped = logits.reshape(count, most, -1)  # (B, K, V)
        with run_errors():
            self._rows(count).run(tokens, counts, wanted, shaped)
        return [
            score_rows(shaped[row, : len(positions)], rows, each.tokens)
            for row, ((positions, rows), each) in enumerate(zip(asked, targets, strict=True))
        ]

    def close(self) -> None:
        """See `ScoringSession.close`."""
        self._caches.release()
        self._trunk_binding, self._row_bindings, self._branches = None, {}, []

    @property
    def _trunk(self) -> PrefillBinding:
        if self._trunk_binding is None:
            self._trunk_binding = self._flavour.prefill(self._session, self._caches, _TRUNK)
        return self._trunk_binding

    def _rows(self, count: int) -> RowsBinding:
        """Over the first `count` slots after the trunk's."""
        self._refresh()
        if count not in self._row_bindings:
            assert self._flavour.rows is not None
            self._row_bindings[count] = self._flavour.rows(self._session, self._caches, 1, count)
        return self._row_bindings[count]

    def _neighbours(self, running: Sequence[_Branch]) -> list[_Branch]:
        """Running branches in the order of their slots, the first ones: a binding covers neighbours only.

        Those behind move into the slots of branches that are over.
        """
        free = sorted(set(range(1, 1 + len(running))) - {branch.slot for branch in running})
        for branch in running:
            if branch.slot > len(running):
                slot = free.pop()
                self._caches.copy_prefix(branch.slot, slot, int(self._caches.lengths[branch.slot]))
                branch.slot = slot
        return sorted(running, key=lambda branch: branch.slot)

    def _even(self, rows: int) -> int:
        return rows + -rows % self._multiple

    def _room_for(self, rows: int) -> Floats:
        """(rows, V), overwritten by the next call."""
        if rows > len(self._logits):
            self._logits = np.empty((rows, self._config.vocab_size), dtype=np.float32)
        return self._logits[:rows]

    def _refresh(self) -> None:
        """Forget the bindings of buffers that were replaced."""
        if self._caches.allocation != self._allocation:
            self._trunk_binding, self._row_bindings = None, {}
            self._allocation = self._caches.allocation
