"""Distillation's loss and gradient, against the formula written out in fp64 with autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ptbr_slm.distillation import TeacherTargets
from ptbr_slm.loss import IGNORE, linear_cross_entropy

ROWS, WIDTH, VOCABULARY, K = 40, 16, 120, 8
SCALE = 65_536.0


def case(k: int = K, *, weight: float = 0.5, temperature: float = 1.0, seed: int = 0):
    """hidden (N, C), head (V, C), targets (N,) a teacher of k tokens, its logits; in fp64."""
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(ROWS, WIDTH, generator=draw, dtype=torch.float64)
    head = torch.randn(VOCABULARY, WIDTH, generator=draw, dtype=torch.float64)
    targets = torch.randint(0, VOCABULARY, (ROWS,), generator=draw)
    targets[[2, 17]] = IGNORE
    logits = 3 * torch.randn(ROWS, VOCABULARY, generator=draw, dtype=torch.float64)
    best, ids = logits.topk(k)
    rest = logits.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)
    log_probabilities = (torch.cat((best, rest), -1) - logits.logsumexp(-1, keepdim=True)).clamp_min(-60)
    return hidden, head, targets, TeacherTargets(ids, log_probabilities, weight, temperature), logits


def textbook(logits: Tensor, targets: Tensor, teacher: TeacherTargets, z_loss: float = 0.0) -> Tensor:
    """(1 - w) CE + w T^2 KL over k + 1 classes + z lse^2, summed, in plain operations."""
    total = logits.new_zeros(())
    for row, target in enumerate(targets.tolist()):
        if target == IGNORE:
            continue
        p = torch.softmax(logits[row], -1)
        best = p[teacher.ids[row].long()]
        rest = p[torch.isin(torch.arange(len(p)), teacher.ids[row].long(), invert=True)].sum()
        t = torch.softmax(torch.cat((best, rest[None])).log() / teacher.temperature, -1)
        q = torch.softmax(teacher.log_probabilities[row].double() / teacher.temperature, -1)
        total = total - (1 - teacher.weight) * p[target].log()
        total = total + teacher.weight * teacher.temperature**2 * (q * (q.log() - t.log())).sum()
        total = total + z_loss * logits[row].logsumexp(-1) ** 2
    return total


@pytest.mark.parametrize(
    ("weight", "temperature"), [(0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (0.3, 2.0), (0.9, 0.5)]
)
@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
@pytest.mark.parametrize("rows", [1, 7, 500])
@pytest.mark.parametrize("way", ["recomputed", "formed in forward"])
def test_loss_and_gradients_are_those_of_the_formula(weight, temperature, z_loss, rows, way) -> None:
    hidden, head, targets, teacher, _ = case(weight=weight, temperature=temperature)
    hidden.requires_grad_()
    head.requires_grad_()
    wanted = textbook(hidden @ head.t(), targets, teacher, z_loss)
    scale = torch.tensor(1 / 38, dtype=torch.float64) if way == "formed in forward" else None
    found = linear_cross_entropy(hidden, head, targets, scale=scale, z_loss=z_loss, rows=rows, soft=teacher)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-10)
    for a, b in zip(
        torch.autograd.grad(found / 38, (hidden, head)), torch.autograd.grad(wanted / 38, (hidden, head)),
        strict=True,
    ):  # fmt: skip
        assert torch.allclose(a, b, atol=1e-11)


def test_without_weight_it_is_the_cross_entropy() -> None:
    hidden, head, targets, teacher, _ = case(weight=0.0)
    found = linear_cross_entropy(hidden, head, targets, soft=teacher)
    assert found.item() == pytest.approx(linear_cross_entropy(hidden, head, targets).item(), rel=1e-12)


def test_a_teacher_of_every_token_is_hintons() -> None:
    """With k = V and T = 1 nothing is left to lump: the loss is KL over the vocabulary."""
    hidden, head, targets, teacher, logits = case(VOCABULARY, weight=1.0)
    counted = targets != IGNORE
    student = torch.log_softmax(hidden @ head.t(), -1)[counted]
    wanted = torch.nn.functional.kl_div(
        student, torch.log_softmax(logits, -1)[counted], log_target=True, reduction="sum"
    )
    found = linear_cross_entropy(hidden, head, targets, soft=teacher)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-9)


def test_a_student_that_is_its_teacher_has_no_loss_and_no_gradient() -> None:
    hidden, head, targets, _, _ = case()
    logits = hidden @ head.t()
    best, ids = logits.topk(K)
    rest = logits.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)
    teacher = TeacherTargets(ids, torch.cat((best, rest), -1) - logits.logsumexp(-1, keepdim=True), 1.0, 1.0)
    hidden.requires_grad_()
    loss = linear_cross_entropy(hidden, head, targets, scale=torch.tensor(1.0).double(), soft=teacher)
    assert abs(loss.item()) < 1e-9
    assert torch.autograd.grad(loss, hidden)[0].abs().max() < 1e-9


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_a_certain_student_under_another_opinion_stays_finite(weight) -> None:
    """The rest's probability underflows in fp32, and the teacher gives it nearly all."""
    hidden = torch.tensor([[200.0], [200.0]], requires_grad=True)
    head = torch.tensor([[1.0], [0.5], [0.2], [0.0]])
    said = torch.tensor([[0.001, 0.999], [0.999, 0.001]]).log()
    teacher = TeacherTargets(torch.tensor([[0], [0]], dtype=torch.int32), said, weight, 1.0)
    loss = linear_cross_entropy(hidden, head, torch.tensor([0, 3]), scale=torch.tensor(1.0), soft=teacher)
    assert torch.isfinite(loss) and torch.isfinite(torch.autograd.grad(loss, hidden)[0]).all()


def test_half_precision_keeps_what_the_loss_scale_saves() -> None:
    """As the trainer does it on a T4: fp16 products, the loss scale in the factor, a teacher stored in fp16.

    With 65,536 tokens in a step, most gradients would be zero in fp16 without the scale.
    """
    hidden, head, targets, teacher, _ = case(weight=0.5)
    hidden.requires_grad_()
    head.requires_grad_()
    stored = TeacherTargets(teacher.ids.int(), teacher.log_probabilities.half(), 0.5, 1.0)
    wanted = torch.autograd.grad(textbook(hidden @ head.t(), targets, teacher) / 65_536, (hidden, head))
    half_hidden, half_head = (t.detach().float().requires_grad_() for t in (hidden, head))
    factor = torch.tensor(SCALE / 65_536)
    with torch.autocast("cpu", torch.float16):
        loss = linear_cross_entropy(half_hidden, half_head, targets, scale=factor, rows=16, soft=stored)
    found = torch.autograd.grad(loss * factor, (half_hidden, half_head))
    for a, b in zip(found, wanted, strict=True):
        assert float((a.double() / SCALE - b).norm() / b.norm()) < 5e-3


def test_rows_of_a_frozen_head_get_the_gradient() -> None:
    from ptbr_slm.loss import HeadRows

    hidden, head, targets, teacher, _ = case()
    ids = torch.tensor([3, 50])
    values = head[ids].clone().requires_grad_()
    whole = head.clone().requires_grad_()
    scale = torch.tensor(1.0, dtype=torch.float64)
    found = linear_cross_entropy(
        hidden, head, targets, scale=scale, soft=teacher, trained=HeadRows(ids, values)
    )
    wanted = torch.autograd.grad(linear_cross_entropy(hidden, whole, targets, soft=teacher), whole)[0][ids]
    assert torch.allclose(torch.autograd.grad(found, values)[0], wanted, atol=1e-10)
