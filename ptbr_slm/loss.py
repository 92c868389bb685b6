"""Cross-entropy of a linear head, in chunks of rows, right under a loss scale.

The logits of 8,192 tokens with V = 32,000 take 2.4 GiB with their gradients; here at most one chunk of them
exists at a time. Others round dlogits / N to fp16 before the loss scale arrives (ChunkedLossWrapper in
torchtitan/components/loss.py, at b5bcd76). That flushes 53 to 100 % of it to zero (measured on the CPU, means
over 1,024 to 65,536 tokens). Here every gradient is multiplied by its whole factor in fp32 before it is
rounded, and the head's gradient is summed over chunks in fp32.

Two ways to the same gradient (docs/decisions/0031-loss-in-chunks.md):
- `scale` given: it is the factor that backward will bring (loss scale / target tokens of the step), so the
  gradients are formed in the forward pass, while a chunk's logits are there: three products, as plain.
- `scale` None: backward makes each chunk's logits again: four products.

A head that is frozen gets no gradient; where some of its rows are trained (`HeadRows`), only those do.
`SoftTargets` put another loss of the same logits in the place of the cross-entropy.

Shapes: N rows (tokens), C hidden_size, V vocab_size, R rows of a chunk, S trained rows of a frozen head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ptbr_slm.loss_chunks import chunk_rows

IGNORE = -100
"""Target id that counts neither in the loss nor in its divisor."""


class SharedGradient:
    """The gradient of a matrix that is both embedding and head, on its way from the one to the other.

    Autograd would hold the head's (V, C) until the embedding's is made and then add them into a third; here
    the loss leaves its gradient, and `tied_embedding` adds its few rows to it and passes it on.
    """

    def __init__(self) -> None:
        self._gradient: Tensor | None = None

    def put(self, gradient: Tensor) -> None:
        """Leave the head's gradient (V, C)."""
        self._gradient = gradient

    def take(self, like: Tensor) -> Tensor:
        """The head's gradient, or zeros where the head has left none."""
        gradient, self._gradient = self._gradient, None
        return torch.zeros_like(like) if gradient is None else gradient


def tied_embedding(tokens: Tensor, weight: Tensor, shared: SharedGradient) -> Tensor:
    """F.embedding, tokens (B, T), weight (V, C) -> (B, T, C); its gradient joins what `shared` holds."""
    rows: Tensor = _TiedEmbedding.apply(tokens, weight, shared)  # type: ignore[no-untyped-call]
    return rows


def plain_cross_entropy(logits: Tensor, targets: Tensor, z_loss: float = 0.0) -> Tensor:
    """Summed cross-entropy in nats, fp32: logits (N, V), targets (N,). z_loss: see `linear_cross_entropy`."""
    logits = logits.float()
    loss = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")
    if z_loss:
        # Times 0 and not a mask as index: how many are left would make the host wait for a GPU.
        loss = loss + z_loss * (logits.logsumexp(-1) * (targets != IGNORE)).square().sum()
    return loss


@dataclass(frozen=True, slots=True)
class HeadRows:
    """The rows of a frozen head that are trained: what the loss uses in their place."""

    ids: Tensor
    """(S,) int64, which rows."""
    values: Tensor
    """(S, C) what they hold."""


class SoftTargets(Protocol):
    """A loss of logits that knows more than the targets: `ptbr_slm.distillation.TeacherTargets`.

    logits: (R, V) of the rows `part`, spent by the call; targets: (R,); counts: (R, 1) how much each row
    counts, 0 for an ignored target.
    """

    def losses(self, logits: Tensor, targets: Tensor, counts: Tensor, part: slice, z_loss: float) -> Tensor:
        """Each row's loss (R, 1)."""

    def gradient_(
        self, logits: Tensor, targets: Tensor, counts: Tensor, part: slice, z_loss: float, factor: Tensor
    ) -> Tensor:
        """As `losses`; turns logits into `factor` () times the gradient, in place."""


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    scale: Tensor | None = None,
    z_loss: float = 0.0,
    rows: int | None = None,
    shared: SharedGradient | None = None,
    trained: HeadRows | None = None,
    factors: Tensor | None = None,
    soft: SoftTargets | None = None,
) -> Tensor:
    """Summed cross-entropy in nats, fp32 (), of hidden (N, C) through the head weight (V, C).

    targets: (N,) int64, `IGNORE` counts nowhere. scale: fp32 (), the derivative by this sum of what backward
    starts from, where it is known by now; a backward that brings another stays right, by one more
    multiplication in fp32. z_loss: adds z_loss * logsumexp(logits)^2 for each target, which keeps the logits
    from drifting (PaLM, 2204.02311, with 1e-4). rows: of a chunk; by default `chunk_rows`. shared: where to
    leave weight's gradient instead of returning it to autograd. trained: rows that take the place of those of
    a frozen weight, and get the gradient. factors: (N,) of each target's loss, without a gradient; None: all
    1. soft: the loss that takes the place of the cross-entropy. Products are made in autocast's format where
    it is on.
    """
    assert trained is None or not weight.requires_grad
    count = rows or chunk_rows(len(hidden), weight.shape[0], hidden.device.type)
    ids, values = (None, None) if trained is None else (trained.ids, trained.values)
    job = _Job(z_loss, count, product_dtype(hidden), shared, weight.requires_grad, ids, factors, soft)
    differentiable = [t for t in (hidden, weight, values) if t is not None and t.requires_grad]
    with torch.autocast(hidden.device.type, enabled=False):
        if torch.is_grad_enabled() and differentiable and scale is not None:
            made: Tensor = _FormedInForward.apply(hidden, weight, values, targets, scale, job)  # type: ignore[no-untyped-call]
        else:
            made = _Recomputed.apply(hidden, weight, values, targets, job)  # type: ignore[no-untyped-call]
    return made


@torch.no_grad()
def linear_log_probs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    rows: int | None = None,
    trained: HeadRows | None = None,
) -> Tensor:
    """(N,) fp32 log-probability of each target, 0 where it is `IGNORE`; without a gradient.

    The arguments are those of `linear_cross_entropy`.
    """
    count = rows or chunk_rows(len(hidden), weight.shape[0], hidden.device.type)
    ids, values = (None, None) if trained is None else (trained.ids, trained.values)
    job = _Job(0.0, count, product_dtype(hidden), None, False, ids, None)
    with torch.autocast(hidden.device.type, enabled=False):
        head = job.head(weight, values)
        found = []
        for part in _parts(len(hidden), count):
            logits = _logits(hidden[part], head)
            chosen = chosen_logits(logits, targets[part])
            found.append(-_losses(chosen, exponentials(logits)[1], targets[part], job, part))
    return torch.cat(found).squeeze(-1)


def log_prob_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    loss: Callable[[Tensor], Tensor],
    *,
    scale: Tensor | None = None,
    rows: int | None = None,
    shared: SharedGradient | None = None,
    trained: HeadRows | None = None,
) -> Tensor:
    """Any loss () of the targets' log-probabilities (N,), with its gradient; one chunk of logits at a time.

    Its derivative by each log-probability is known once all of them are, and the gradient is that of a
    cross-entropy with these factors: one product with the head more than `linear_cross_entropy`, whose
    arguments the others are. It is as safe under a loss scale, which is in `scale` before anything is
    rounded. Without gradients `loss` may return any shape.
    """
    found = linear_log_probs(hidden, weight, targets, rows=rows, trained=trained)
    if not torch.is_grad_enabled():
        return loss(found)
    found.requires_grad_()
    value = loss(found)
    (slopes,) = torch.autograd.grad(value, found)
    carrier = linear_cross_entropy(
        hidden,
        weight,
        targets,
        scale=scale,
        rows=rows,
        shared=shared,
        trained=trained,
        factors=-slopes,
    )
    return value.detach() + (carrier - carrier.detach())


def product_dtype(x: Tensor) -> torch.dtype:
    """The format of matrix products with x: autocast's where it is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


@dataclass(frozen=True, slots=True)
class _Job:
    """What both ways need besides tensors."""

    z_loss: float
    rows: int
    """Of a chunk."""
    dtype: torch.dtype
    """Of the products."""
    shared: SharedGradient | None
    weight_trained: bool
    ids: Tensor | None
    """`HeadRows.ids`, where only some rows of the head are trained."""
    factors: Tensor | None
    """(N,) of each target's loss; None: all 1."""
    soft: SoftTargets | None = None

    def counts(self, targets: Tensor, part: slice) -> Tensor:
        """(R, 1) how much each target of a chunk counts: its factor, 0 for IGNORE."""
        counted = (targets != IGNORE).unsqueeze(-1)
        return counted if self.factors is None else counted * self.factors[part].unsqueeze(-1)

    def head(self, weight: Tensor, values: Tensor | None) -> Tensor:
        """The head (V, C) as the products take it."""
        if self.ids is None or values is None:
            return weight.to(self.dtype)
        return weight.to(self.dtype, copy=True).index_copy_(0, self.ids, values.to(self.dtype))


class _TiedEmbedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor, shared: SharedGradient) -> Tensor:
        ctx.save_for_backward(tokens, weight)
        ctx.shared = shared
        return F.embedding(tokens, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        tokens, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2).to(weight.dtype)
        total = ctx.shared.take(weight)
        if total.device.type == "cpu":
            total.index_add_(0, tokens.flatten(), rows)
        else:  # index_add_ adds in any order on a GPU; this one sorts first
            total.index_put_((tokens.flatten(),), rows, accumulate=True)
        return None, total, None


class _Recomputed(torch.autograd.Function):
    """Backward makes the logits again."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, values: Tensor | None, targets: Tensor, job: _Job
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, values, targets)
        ctx.job = job
        head = job.head(weight, values)
        loss = _zero(hidden)
        for part in _parts(len(hidden), job.rows):
            logits = _logits(hidden[part], head)
            if job.soft is not None:
                counts = job.counts(targets[part], part)
                loss += job.soft.losses(logits, targets[part], counts, part, job.z_loss).sum()
                continue
            chosen = chosen_logits(logits, targets[part])
            loss += _losses(chosen, exponentials(logits)[1], targets[part], job, part).sum()
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        hidden, weight, values, targets = ctx.saved_tensors
        work = _Gradients(hidden, weight, values, targets, gradient, ctx.job)
        for part in _parts(len(hidden), ctx.job.rows):
            work.add(part)
        return work.to_hidden, _hand_over(work.to_weight, ctx.job.shared), work.to_values, None, None


class _FormedInForward(torch.autograd.Function):
    """Forward forms the gradients, backward corrects their factor where it is not the one foretold."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        values: Tensor | None,
        targets: Tensor,
        scale: Tensor,
        job: _Job,
    ) -> Tensor:
        work = _Gradients(hidden, weight, values, targets, scale, job)
        loss = _zero(hidden)
        for part in _parts(len(hidden), job.rows):
            loss += work.add(part).sum()
        # Not save_for_backward: autograd copies a gradient that somebody else holds too.
        ctx.gradients = (work.to_hidden, work.to_weight, work.to_values)
        ctx.scale, ctx.shared = scale, job.shared
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        if ctx.gradients is None:
            raise RuntimeError("linear_cross_entropy with scale: its gradients serve one backward pass")
        formed, ctx.gradients = ctx.gradients, None
        ratio = gradient / ctx.scale
        # Reading the value is free on a CPU; on a GPU it would make the host wait.
        if ratio.device.type != "cpu" or ratio.item() != 1.0:
            formed = tuple(None if part is None else part.mul_(ratio) for part in formed)
        to_hidden, to_weight, to_values = formed
        return to_hidden, _hand_over(to_weight, ctx.shared), to_values, None, None, None


class _Gradients:
    """The gradients of hidden, and of weight or of its trained rows, chunk by chunk.

    Of a row: factor * (p - onehot) with p = softmax(logits), and with z-loss factor * (p * (1 + 2 z lse) -
    onehot) = row * (p - onehot / (1 + 2 z lse)), row = factor * (1 + 2 z lse); 0 for an ignored target.
    """

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        values: Tensor | None,
        targets: Tensor,
        factor: Tensor,
        job: _Job,
    ) -> None:
        self.hidden, self.targets, self.factor, self.job = hidden, targets, factor, job
        self.head = job.head(weight, values)
        self.to_hidden = torch.empty_like(hidden)
        self.to_weight = torch.empty_like(weight) if job.weight_trained else None
        self.to_values = None if values is None else torch.empty_like(values)
        self._first = True

    def add(self, part: slice) -> Tensor:
        """Add this chunk's; returns its rows' losses (R, 1)."""
        states, targets = self.hidden[part].to(self.job.dtype), self.targets[part]
        logits = _logits(states, self.head)  # (R, V)
        counts = self.job.counts(targets, part)
        if self.job.soft is not None:
            losses = self.job.soft.gradient_(logits, targets, counts, part, self.job.z_loss, self.factor)
            self._multiply(logits, states, part)
            return losses
        chosen = chosen_logits(logits, targets)  # (R, 1)
        total, lse = exponentials(logits)  # logits hold exponentials now, `total` (R, 1) is their sum
        more = 1 + 2 * self.job.z_loss * lse
        row = self.factor * counts * more / total  # (R, 1)
        subtract_at(logits, target_column(targets), total / more)
        if logits.dtype == self.job.dtype:
            # Rows can be multiplied in the narrow matrices then: C columns instead of V.
            torch.mm(logits, self.head, out=self.to_hidden[part])
            self.to_hidden[part].mul_(row)
            self._add_to_rows(logits, states * row)
        else:
            self._multiply(logits.mul_(row), states, part)
        return _losses(chosen, lse, targets, self.job, part)

    def _multiply(self, gradient: Tensor, states: Tensor, part: slice) -> None:
        """Both products of the logits' gradient (R, V), its factor in it: only now it is rounded."""
        rounded = gradient.to(self.job.dtype)
        self.to_hidden[part] = rounded @ self.head
        self._add_to_rows(rounded, states)

    def _add_to_rows(self, logits: Tensor, states: Tensor) -> None:
        """logits' (R, V) transposed times states (R, C), summed over chunks in fp32; of the trained rows."""
        if self.to_weight is not None:
            self._add(self.to_weight, logits, states)
        if self.to_values is not None and self.job.ids is not None:
            self._add(self.to_values, logits.index_select(1, self.job.ids), states)
        self._first = False

    def _add(self, total: Tensor, logits: Tensor, states: Tensor) -> None:
        if logits.dtype != total.dtype:
            product = logits.t() @ states
            total.copy_(product) if self._first else total.add_(product)
        elif self._first:
            torch.mm(logits.t(), states, out=total)
        else:
            total.addmm_(logits.t(), states)


def exponentials(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Turn logits (R, V) into e^logits up to a factor a row, in place; returns sum and log-sum-exp (R, 1)."""
    peak = logits.amax(-1, keepdim=True)
    if logits.device.type == "cpu":  # whose softmax is 1.6 times faster than the three operations below
        torch.softmax(logits, -1, out=logits)
        return torch.ones_like(peak), peak - logits.amax(-1, keepdim=True).log()
    total = logits.sub_(peak).exp_().sum(-1, keepdim=True)
    return total, peak + total.log()


def _losses(chosen: Tensor, lse: Tensor, targets: Tensor, job: _Job, part: slice) -> Tensor:
    """Each row's loss (R, 1), from the target's logit and log-sum-exp, both (R, 1)."""
    losses = lse - chosen
    if job.z_loss:
        losses = losses + job.z_loss * lse.square()
    return losses * job.counts(targets, part)


def target_column(targets: Tensor) -> Tensor:
    """(R, 1), a column to look at for each target, 0 for IGNORE."""
    return targets.clamp_min(0).unsqueeze(-1)


def chosen_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """The targets' logits (R, 1)."""
    return logits.gather(-1, target_column(targets))


def subtract_at(logits: Tensor, column: Tensor, values: Tensor) -> None:
    """Subtract values (R, 1) from logits (R, V) in one column (R, 1) of each row, in place."""
    if logits.device.type == "cpu":  # whose scatter_add_ takes as long as a pass over all of the logits
        logits[torch.arange(len(logits)), column.squeeze(-1)] -= values.squeeze(-1)
    else:
        logits.scatter_add_(-1, column, -values)


def _logits(states: Tensor, head: Tensor) -> Tensor:
    """states (R, C), head (V, C) -> (R, V) in fp32, or in fp64 where the products are."""
    return (states.to(head.dtype) @ head.t()).to(torch.promote_types(head.dtype, torch.float32))


def _hand_over(gradient: Tensor | None, shared: SharedGradient | None) -> Tensor | None:
    if shared is None or gradient is None:
        return gradient
    shared.put(gradient)
    return None


def _zero(hidden: Tensor) -> Tensor:
    return torch.zeros((), device=hidden.device, dtype=torch.promote_types(hidden.dtype, torch.float32))


def _parts(count: int, rows: int) -> list[slice]:
    return [slice(start, min(count, start + rows)) for start in range(0, count, rows)]
