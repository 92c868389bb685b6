"""Distillation from a teacher's most probable tokens: the loss of a student, and its gradient, by chunks.

Hinton, Vinyals and Dean (2015, arXiv:1503.02531) train a student on (1 - w) CE + w T^2 KL(q || t), with q and
t the softmax at temperature T of the teacher's and of the student's logits. Here the teacher is known by its
k most probable tokens and by the probability of all others together, which is one more class: q and t have
k + 1 classes, and T applies to these. The k tokens alone, renormalised, would be a biased estimate of what
the teacher says, which costs quality and calibration (Anshumann et al., 2025, arXiv:2503.16870).

With p the student's softmax over the vocabulary, r the class of the rest, and p_r its probability, the
gradient of T^2 KL(q || t) by the logit of token j is

    T (t_j - q_j)                where j is one of the k tokens
    T (t_r - q_r) p_j / p_r      elsewhere

Shapes: R rows (tokens) of a chunk, V vocab_size, k tokens of the teacher.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ptbr_slm.loss import chosen_logits, exponentials, subtract_at, target_column

_LEAST = 1e-30
"""Of a sum of exponentials whose largest is 1: what is below is nothing, and its logarithm stays finite."""


@dataclass(frozen=True, slots=True)
class TeacherTargets:
    """What a teacher expects after each token of a micro-batch: `ptbr_slm.loss.SoftTargets`."""

    ids: Tensor
    """(N, k) int32 or int64, distinct in each row."""
    log_probabilities: Tensor
    """(N, k + 1) of these tokens, then of all others together; finite."""
    weight: float
    """w above, 0 to 1."""
    temperature: float
    """T above."""

    def losses(self, logits: Tensor, targets: Tensor, counts: Tensor, part: slice, z_loss: float) -> Tensor:
        """As `SoftTargets.losses`."""
        return self._row_losses(self._classes(logits, targets, part), counts, z_loss)

    def gradient_(
        self, logits: Tensor, targets: Tensor, counts: Tensor, part: slice, z_loss: float, factor: Tensor
    ) -> Tensor:
        """As `SoftTargets.gradient_`."""
        ids, hard = self._ids(part), 1.0 - self.weight
        rows = self._classes(logits, targets, part)
        soft = self.weight * self.temperature * (rows.student.exp() - rows.teacher.exp())  # (R, k + 1)
        whole = factor * counts  # (R, 1)
        share = hard + 2.0 * z_loss * rows.lse  # of p, for every token
        logits.mul_(whole * (share / rows.total + soft[:, -1:] / rows.rest))
        logits.scatter_add_(-1, ids, whole * (share * rows.best / rows.total + soft[:, :-1]))
        subtract_at(logits, target_column(targets), hard * whole)
        return self._row_losses(rows, counts, z_loss)

    def _classes(self, logits: Tensor, targets: Tensor, part: slice) -> _Rows:
        """Turn logits (R, V) into exponentials up to a factor a row, in place, 0 for the teacher's tokens."""
        ids, chosen = self._ids(part), chosen_logits(logits, targets)
        total, lse = exponentials(logits)
        best = logits.gather(-1, ids)  # (R, k)
        # The rest is added up by itself: total - best would have no digits left where best is nearly all.
        rest = logits.scatter_(-1, ids, 0.0).sum(-1, keepdim=True).clamp_min_(_LEAST)  # (R, 1)
        classes = torch.cat((best.clamp_min(_LEAST), rest), dim=-1).log_()  # (R, k + 1)
        teacher = self.log_probabilities[part].to(logits.dtype)
        return _Rows(
            chosen=chosen,
            lse=lse,
            total=total,
            best=best,
            rest=rest,
            student=torch.log_softmax(classes / self.temperature, dim=-1),
            teacher=torch.log_softmax(teacher / self.temperature, dim=-1),
        )

    def _row_losses(self, rows: _Rows, counts: Tensor, z_loss: float) -> Tensor:
        divergence = (rows.teacher.exp() * (rows.teacher - rows.student)).sum(-1, keepdim=True)  # (R, 1)
        losses = (1.0 - self.weight) * (rows.lse - rows.chosen)
        losses = losses + self.weight * self.temperature**2 * divergence
        return (losses + z_loss * rows.lse.square()) * counts

    def _ids(self, part: slice) -> Tensor:
        return self.ids[part].long()


@dataclass(frozen=True, slots=True)
class _Rows:
    """What loss and gradient of a chunk have in common."""

    chosen: Tensor
    """(R, 1) the targets' logits."""
    lse: Tensor
    """(R, 1) log-sum-exp of the logits."""
    total: Tensor
    """(R, 1) sum of all exponentials."""
    best: Tensor
    """(R, k) exponentials of the teacher's tokens."""
    rest: Tensor
    """(R, 1) sum of the others."""
    student: Tensor
    """(R, k + 1) log-probabilities of the classes at T."""
    teacher: Tensor
    """(R, k + 1)."""
