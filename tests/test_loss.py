"""The chunked loss: the same numbers as PyTorch's, in less memory, and whole under fp16's loss scale."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ptbr_slm.config import ModelConfig
from ptbr_slm.eval.bits import HeldOut
from ptbr_slm.loss import IGNORE, SharedGradient, linear_cross_entropy, plain_cross_entropy, tied_embedding
from ptbr_slm.loss_chunks import CHUNK_BYTES, FEWEST_ROWS, chunk_rows
from ptbr_slm.model import Llama
from ptbr_slm.train.batches import random_batch
from ptbr_slm.train.evaluate import bits_per_byte
from ptbr_slm.train.planning.precision import Precision, PrecisionName
from ptbr_slm.train.step import optimizer_step

ROWS, WIDTH, VOCABULARY = 96, 64, 512
SCALE = 65_536.0
WAYS = ("recomputed", "formed in forward")


def case(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """hidden (N, C), head weight (V, C) and targets (N,), some of them IGNORE."""
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(ROWS, WIDTH, generator=draw, dtype=dtype)
    weight = torch.randn(VOCABULARY, WIDTH, generator=draw, dtype=dtype) * 0.1
    targets = torch.randint(0, VOCABULARY, (ROWS,), generator=draw)
    targets[[3, 40, 95]] = IGNORE
    return hidden.requires_grad_(), weight.requires_grad_(), targets


def gradients(loss: Tensor, factor: float, *leaves: Tensor) -> list[Tensor]:
    """Of factor * loss."""
    return list(torch.autograd.grad(loss * factor, leaves))


def scale_of(way: str, factor: float, dtype: torch.dtype = torch.float32) -> Tensor | None:
    return torch.tensor(factor, dtype=dtype) if way == "formed in forward" else None


def error(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm of what was wanted."""
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.mark.parametrize("rows", [1, 7, 32, 96, 500])
@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
@pytest.mark.parametrize("way", WAYS)
def test_loss_and_gradients_are_those_of_plain_cross_entropy(way: str, z_loss: float, rows: int) -> None:
    hidden, weight, targets = case()
    factor = 1 / 93
    plain = plain_cross_entropy(hidden @ weight.t(), targets, z_loss)
    ours = linear_cross_entropy(
        hidden, weight, targets, scale=scale_of(way, factor), z_loss=z_loss, rows=rows
    )
    assert ours.item() == pytest.approx(plain.item(), rel=1e-6)
    wanted = gradients(plain, factor, hidden, weight)
    for found, right in zip(gradients(ours, factor, hidden, weight), wanted, strict=True):
        assert error(found, right) < 3e-6


@pytest.mark.parametrize("way", WAYS)
def test_gradients_equal_finite_differences(way: str) -> None:
    """In fp64 by torch.autograd.gradcheck, z-loss included."""
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 6, IGNORE, 2, 2])
    scale = scale_of(way, 1.0, torch.float64)

    def loss(h: Tensor, w: Tensor) -> Tensor:
        return linear_cross_entropy(h, w, targets, scale=scale, z_loss=0.1, rows=2)

    # A gradient formed in the forward pass serves one backward; gradcheck takes several of the same graph.
    if way == "recomputed":
        assert torch.autograd.gradcheck(loss, (hidden, weight))
    for leaf in (hidden, weight):
        exact = torch.autograd.grad(loss(hidden, weight), leaf)[0]
        plain = plain_z(hidden @ weight.t(), targets, 0.1)
        assert torch.allclose(exact, torch.autograd.grad(plain, leaf)[0], atol=1e-10)


def plain_z(logits: Tensor, targets: Tensor, z_loss: float) -> Tensor:
    """The textbook's, in the logits' own precision."""
    counted = logits[targets != IGNORE]
    nats = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")
    return nats + z_loss * counted.logsumexp(-1).square().sum()


def test_z_loss_of_plain_cross_entropy_is_the_textbooks() -> None:
    hidden, weight, targets = case()
    logits = hidden @ weight.t()
    assert plain_cross_entropy(logits, targets, 0.3).item() == pytest.approx(
        plain_z(logits, targets, 0.3).item()
    )


@pytest.mark.parametrize("brought", [1.0, 0.25, 1e-6, 65_536 / 3])
def test_a_backward_that_brings_another_factor_than_foretold_is_right_too(brought: float) -> None:
    hidden, weight, targets = case()
    wanted = gradients(plain_cross_entropy(hidden @ weight.t(), targets), brought, hidden, weight)
    ours = linear_cross_entropy(hidden, weight, targets, scale=torch.tensor(1 / 7), rows=32)
    for found, right in zip(gradients(ours, brought, hidden, weight), wanted, strict=True):
        assert error(found, right) < 3e-6


def test_gradients_formed_in_forward_serve_one_backward_only() -> None:
    hidden, weight, targets = case()
    loss = linear_cross_entropy(hidden, weight, targets, scale=torch.tensor(1.0))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward"):
        loss.backward()


@pytest.mark.parametrize("tokens", [1_024, 65_536, 524_288])
@pytest.mark.parametrize("way", WAYS)
def test_fp16_gradients_under_a_loss_scale_are_within_one_in_a_thousand(way: str, tokens: int) -> None:
    """Means over so many tokens at scale 65,536; the rows here are a micro-batch of such a step."""
    hidden, weight, targets = case()
    factor = SCALE / tokens
    exact = plain_z(hidden.double() @ weight.double().t(), targets, 0.0)
    wanted = gradients(exact, factor, hidden, weight)
    with torch.autocast("cpu", torch.float16):
        loss = linear_cross_entropy(hidden, weight, targets, scale=scale_of(way, factor), rows=32)
    found = gradients(loss, factor, hidden, weight)
    for ours, right in zip(found, wanted, strict=True):
        assert ours.isfinite().all()
        assert error(ours, right) < 1e-3


@pytest.mark.parametrize("tokens", [65_536, 524_288])
def test_rounding_before_the_scale_would_fail_that_bound(tokens: int) -> None:
    """What chunked losses elsewhere do: dlogits / N in fp16, times the loss scale afterwards."""
    hidden, weight, targets = case()
    wanted = gradients(plain_cross_entropy(hidden @ weight.t(), targets), SCALE / tokens, hidden, weight)
    with torch.no_grad():
        counts = (targets != IGNORE).unsqueeze(-1)
        onehot = F.one_hot(targets.clamp_min(0), VOCABULARY)
        logits = (hidden.half() @ weight.half().t()).float()
        early = ((logits.softmax(-1) - onehot) * counts / tokens).half()
        naive = ((early @ weight.half()).float() * SCALE, (early.t() @ hidden.half()).float() * SCALE)
    assert max(error(found, right) for found, right in zip(naive, wanted, strict=True)) > 1e-3


def test_without_a_gradient_nothing_but_the_loss_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, targets = case()

    def refuse(*_: object) -> None:
        raise AssertionError("a gradient was made")

    monkeypatch.setattr("ptbr_slm.loss._Gradients", refuse)
    with torch.no_grad():
        loss = linear_cross_entropy(hidden, weight, targets, scale=torch.tensor(1.0))
        assert loss.item() == pytest.approx(
            plain_cross_entropy(hidden @ weight.t(), targets).item(), rel=1e-6
        )


@pytest.mark.parametrize("chunked", [True, False])
def test_a_tied_matrix_gets_both_gradients_in_one_tensor(chunked: bool) -> None:
    _, weight, targets = case()
    tokens = torch.randint(0, VOCABULARY, (ROWS,), generator=torch.Generator().manual_seed(1))
    plain = plain_cross_entropy(F.embedding(tokens, weight) @ weight.t(), targets)
    wanted = gradients(plain, 1.0, weight)[0]
    shared = SharedGradient()
    states = tied_embedding(tokens, weight, shared)
    if chunked:
        loss = linear_cross_entropy(states, weight, targets, scale=torch.tensor(1.0), shared=shared)
    else:  # autograd adds the two itself where the loss leaves none
        loss = plain_cross_entropy(states @ weight.t(), targets)
    loss.backward()
    assert weight.grad is not None and error(weight.grad, wanted) < 3e-6


def test_autograd_takes_the_heads_gradient_over_without_a_copy() -> None:
    _, weight, targets = case()
    tokens = torch.zeros(ROWS, dtype=torch.int64)
    shared = SharedGradient()
    loss = linear_cross_entropy(
        tied_embedding(tokens, weight, shared), weight, targets, scale=torch.tensor(1.0), shared=shared
    )
    made = loss.grad_fn.gradients[1].data_ptr()  # type: ignore[union-attr]
    loss.backward()
    assert weight.grad is not None and weight.grad.data_ptr() == made


def test_logits_of_8k_tokens_at_32k_take_at_most_a_third_of_a_gibibyte() -> None:
    """By the chunks' size; on a GPU in fp16: fp16 logits, their fp32 copy, fp16 gradient; on a CPU fp32."""
    for device, bytes_a_logit, most in (("cuda", 2 + 4 + 2, 128 << 20), ("cpu", 4, 64 << 20)):
        rows = chunk_rows(8192, 32_000, device)
        assert rows * 32_000 * bytes_a_logit <= 0.35 * 2**30
        assert rows * 32_000 * 4 <= most


def peak_of(work: Callable[[], object]) -> int:
    """Most bytes that PyTorch's allocator held during it."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        work()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    running = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        running += event.nbytes()
        peak = max(peak, running)
    return peak


@pytest.mark.parametrize("kind", ["chunked", "plain"])
def test_evaluation_makes_a_chunk_of_logits_at_a_time_whatever_training_does(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHUNK_BYTES, "cpu", 1 << 18)
    monkeypatch.setitem(FEWEST_ROWS, "cpu", 1)
    shape = ModelConfig(vocab_size=8192, hidden_size=16, num_layers=1, num_heads=1, num_kv_heads=1,
                        head_dim=16, intermediate_size=16, max_seq_len=64)  # fmt: skip
    model = Llama(shape).initialize(0).eval()
    model.loss = kind
    inputs = np.random.default_rng(0).integers(0, 8192, (8, 64))
    text = HeldOut(inputs, inputs, 1000)
    peak = peak_of(lambda: bits_per_byte(model, text, 8, Precision("fp32", "")))
    assert peak < 0.1 * 4 * inputs.size * 8192


def test_measured_peak_of_the_loss_is_a_chunk_and_the_gradients() -> None:
    """On the CPU by PyTorch's allocator: far below the three (N, V) tensors of plain cross-entropy."""
    rows, width, vocabulary = 2048, 16, 16_000
    hidden = torch.randn(rows, width, requires_grad=True)
    weight = torch.randn(vocabulary, width, requires_grad=True)
    targets = torch.randint(0, vocabulary, (rows,))
    scale = torch.tensor(1 / rows)
    peak = peak_of(lambda: linear_cross_entropy(hidden, weight, targets, scale=scale).backward())
    logits = 4 * rows * vocabulary
    expected = 4 * (chunk_rows(rows, vocabulary, "cpu") * vocabulary + (rows + vocabulary) * width)
    assert peak == pytest.approx(expected, rel=0.1) and peak < 0.6 * logits


@pytest.mark.parametrize(
    ("tokens", "vocabulary"), [(1, 7), (512, 4096), (8192, 32_000), (8193, 32_000), (3, 10**9)]
)
def test_chunks_cover_all_rows_evenly(tokens: int, vocabulary: int) -> None:
    rows = chunk_rows(tokens, vocabulary, "cpu")
    chunks = math.ceil(tokens / rows)
    assert 1 <= rows <= tokens and (chunks - 1) * rows < tokens
    assert chunks == 1 or rows - tokens / chunks <= 1


def small(**settings: object) -> Llama:
    shape = ModelConfig(vocab_size=200, hidden_size=32, num_layers=1, num_heads=1, num_kv_heads=1,
                        head_dim=32, intermediate_size=32, max_seq_len=32)  # fmt: skip
    model = Llama(shape).initialize(0).train()
    for name, value in settings.items():
        setattr(model, name, value)
    return model


def test_z_loss_counts_in_training_and_not_in_evaluation() -> None:
    tokens = torch.randint(0, 200, (2, 9), generator=torch.Generator().manual_seed(0))
    losses = {}
    for z_loss in (0.0, 0.1):
        for kind in ("chunked", "plain"):
            model = small(loss=kind, z_loss=z_loss)
            trained = model.loss_sum(tokens[:, :-1], tokens[:, 1:]).item()
            with torch.no_grad():
                losses[kind, z_loss] = trained, model.eval().loss_sum(tokens[:, :-1], tokens[:, 1:]).item()
    for kind in ("chunked", "plain"):
        assert losses[kind, 0.1][1] == losses[kind, 0.0][1] == pytest.approx(losses[kind, 0.0][0], rel=1e-6)
        expected = 16 * 0.1 * math.log(200) ** 2  # 16 tokens of a model that knows nothing
        assert losses[kind, 0.1][0] - losses[kind, 0.0][0] == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_training_step_makes_three_products_with_the_head_and_plains_gradients(
    precision: PrecisionName, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [random_batch(200, 2, 9, seed=seed) for seed in range(3)]
    found = {}
    for kind in ("plain", "chunked"):
        if kind == "chunked":
            monkeypatch.setattr("ptbr_slm.loss._Recomputed.apply", None)  # what would take a fourth
        model = small(loss=kind)
        scaler = torch.amp.GradScaler("cpu") if precision == "fp16" else None
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        result = optimizer_step(
            model, optimizer, batches, precision=Precision(precision, ""), scaler=scaler, gradient_clip=0.0
        )
        found[kind] = result, {name: p.grad for name, p in model.named_parameters()}
    assert found["chunked"][0].loss == pytest.approx(found["plain"][0].loss, rel=1e-5)
    for name, gradient in found["plain"][1].items():
        assert gradient is not None and found["chunked"][1][name] is not None
        assert error(found["chunked"][1][name], gradient) < (3e-6 if precision == "fp32" else 2e-3), name
