"""Direct preference optimization (DPO; Rafailov et al., 2023, arXiv:2305.18290): of two answers to one prompt
the chosen one becomes more likely, and the rejected one less, than they were to the model before (the
reference).

    loss of a pair = -log sigmoid(beta * margin) - nll_weight * log p(chosen) / tokens(chosen)
    margin = (log p(chosen) - log p_ref(chosen)) - (log p(rejected) - log p_ref(rejected))

log p is the sum over an answer's tokens, the one that ends its turn included. The second term keeps the
chosen answer likely: DPO alone may lower both (Pang et al., 2024, arXiv:2404.19733).

A row of a micro-batch holds whole pairs. The two answers of a pair stand beside each other, each after its
prompt, as documents 2k and 2k + 1 that do not see each other; what is left of the row is padding.

Shapes: B rows, T tokens, P pairs of the fullest row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ptbr_slm.model import IGNORE, Llama
from ptbr_slm.train.batches import DeviceBatch, MicroBatch, epoch_keys, permute
from ptbr_slm.tune.examples import Example
from ptbr_slm.tune.packing import Rows

Floats = npt.NDArray[np.float64]


class Pairs(Protocol):
    """Pairs of answers by their number."""

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(pairs, 2) ids of the chosen and of the rejected example."""

    def pair(self, number: int) -> tuple[Example, Example]:
        """The chosen and the rejected example of pair `number`, from 0."""


@dataclass(frozen=True, slots=True)
class DPO:
    """What is asked of a pair."""

    beta: float = 0.1
    """How much a margin counts; the higher, the nearer to the reference the model stays."""
    nll_weight: float = 0.0
    """Of the chosen answer's negative log-likelihood per token."""

    def losses(self, log_probs: Tensor, reference: Tensor, tokens: Tensor) -> Tensor:
        """(...,) in nats of a pair. All (..., 2), chosen first: summed log-probabilities, those of the
        reference, and how many tokens were summed.
        """
        gain = log_probs - reference
        losses = -F.logsigmoid(self.beta * (gain[..., 0] - gain[..., 1]))
        if self.nll_weight:
            losses = losses - self.nll_weight * log_probs[..., 0] / tokens[..., 0].clamp_min(1)
        return losses


@dataclass(frozen=True, slots=True, kw_only=True)
class PairBatch(MicroBatch):
    """Rows of pairs; `document_ids` are always there."""

    reference: Floats
    """(B, P, 2) log-probabilities of the answers to the reference model, chosen first; 0 without a pair."""
    objective: DPO

    def __getitem__(self, part: slice) -> PairBatch:
        """Some of the rows."""
        assert self.document_ids is not None
        return PairBatch(
            self.tokens[part],
            self.targets[part],
            self.document_ids[part],
            reference=self.reference[part],
            objective=self.objective,
        )

    @property
    def divisor(self) -> int:
        """Pairs."""
        assert self.document_ids is not None
        learnt = np.where(self.targets != IGNORE, self.document_ids, -1)  # (B, T)
        return int((learnt.max(axis=1) + 1).sum()) // 2

    def to(self, device: torch.device) -> DevicePairs:
        """As `MicroBatch.to`."""
        there = MicroBatch(self.tokens, self.targets, self.document_ids).to(device)
        reference = torch.from_numpy(self.reference.astype(np.float32))
        if device.type == "cuda":
            reference = reference.pin_memory().to(device, non_blocking=True)
        return DevicePairs(
            there.tokens, there.targets, there.document_ids, reference=reference, objective=self.objective
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePairs(DeviceBatch):
    """A micro-batch of pairs on its device."""

    reference: Tensor
    """(B, P, 2), as `PairBatch.reference`."""
    objective: DPO

    def loss_sum(self, model: Llama) -> Tensor:
        """The summed losses of the pairs, fp32, in nats."""
        return model.log_prob_loss(self.tokens, self.targets, self._loss, self.document_ids)

    def without_targets(self) -> DevicePairs:
        """As `DeviceBatch.without_targets`."""
        targets = torch.full_like(self.targets, IGNORE)
        return DevicePairs(
            self.tokens, targets, self.document_ids, reference=self.reference, objective=self.objective
        )

    def _loss(self, log_probs: Tensor) -> Tensor:
        """log_probs: (B, T) of the targets -> ()."""
        answers = self._answers()
        tokens = answers.sum(-1)  # (B, P, 2)
        sums = torch.where(answers, log_probs[:, None, None], 0.0).sum(-1)
        losses = self.objective.losses(sums, self.reference.to(sums.dtype), tokens)  # (B, P)
        return torch.where(tokens[..., 0] > 0, losses, 0.0).sum()

    def _answers(self) -> Tensor:
        """(B, P, 2, T) which positions predict a token of which answer.

        A sum over a mask, and no scattered additions: these are made in any order on a GPU.
        """
        assert self.document_ids is not None
        _, pairs, _ = self.reference.shape
        numbers = torch.arange(2 * pairs, device=self.tokens.device).view(1, pairs, 2, 1)
        learnt = torch.where(self.targets != IGNORE, self.document_ids, -1)  # (B, T)
        return learnt[:, None, None] == numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredPairs(DevicePairs):
    """Pairs whose log-probabilities are wanted, and not their loss. Call without gradients."""

    def loss_sum(self, model: Llama) -> Tensor:
        """(B, P, 2) log-probabilities of the answers, chosen first, fp32."""
        return model.log_prob_loss(
            self.tokens,
            self.targets,
            lambda found: torch.where(self._answers(), found[:, None, None], 0.0).sum(-1),
            self.document_ids,
        )


class PairBatches:
    """Pairs as micro-batches, a `BatchSource`: window w of the run is a row of epoch w // rows.

    Rows are filled as those of `ptbr_slm.tune.packing`, by whole pairs.
    """

    def __init__(
        self, pairs: Pairs, reference: Floats, objective: DPO, *, seq_len: int, seed: int, pad_id: int
    ) -> None:
        """pairs: one at least, none of which fills more than seq_len positions. reference: (pairs, 2).

        pad_id: any token.
        """
        self._pairs, self._reference, self._objective = pairs, reference, objective
        self._seq_len, self._seed, self._pad_id = seq_len, seed, pad_id
        self._packed = Rows(pairs.lengths.sum(axis=1) - 2, seq_len, seed)

    @property
    def rows(self) -> int:
        """Rows of one epoch."""
        return self._packed.rows

    def pairs(self, row: int) -> npt.NDArray[np.int64]:
        """(n,) numbers of the pairs of a row."""
        return self._packed.conversations(row)

    def sequences(self, windows: Sequence[range], share: slice = slice(None)) -> PairBatch:
        """As `BatchSource.sequences`. Raises E_DATA_CORRUPT for a token that is not in the vocabulary."""
        numbers = np.concatenate([np.arange(piece.start, piece.stop) for piece in windows])[share]
        return self.batch([self._row(window) for window in numbers.tolist()])

    def batch(self, rows: Sequence[int]) -> PairBatch:
        """Rows by their number."""
        members = [self.pairs(row).tolist() for row in rows]
        tokens = np.full((len(rows), self._seq_len), self._pad_id, np.int64)  # (B, T)
        targets = np.full_like(tokens, IGNORE)
        documents = np.zeros(tokens.shape, np.int32)
        reference = np.zeros((len(rows), max(map(len, members)), 2))
        for at, numbers in enumerate(members):
            start = document = 0
            reference[at, : len(numbers)] = self._reference[numbers]
            for example in (example for number in numbers for example in self._pairs.pair(number)):
                stop = start + len(example.ids) - 1
                tokens[at, start:stop] = example.ids[:-1]
                targets[at, start:stop] = np.where(example.target[1:], example.ids[1:], IGNORE)
                documents[at, start:stop] = document
                start, document = stop, document + 1
                documents[at, stop:] = document
        return PairBatch(tokens, targets, documents, reference=reference, objective=self._objective)

    def _row(self, window: int) -> int:
        epoch, position = divmod(window, self.rows)
        return int(permute(np.array([position]), self.rows, epoch_keys(self._seed, epoch))[0])
