"""One optimizer step: the gradient of one large batch, clipped after unscaling, in any cut and precision."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from ptbr_slm.config import ModelConfig
from ptbr_slm.model import IGNORE, Llama
from ptbr_slm.train.batches import MicroBatch
from ptbr_slm.train.config import OptimizerConfig
from ptbr_slm.train.optim import build_optimizer
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.train.step import StepResult, is_out_of_memory, optimizer_step

FP32, FP16 = Precision("fp32", ""), Precision("fp16", "")
SHAPE = ModelConfig(vocab_size=200, hidden_size=64, num_layers=4, num_heads=2, num_kv_heads=1, head_dim=32,
                    intermediate_size=96, max_seq_len=32)  # fmt: skip


def micro_batch(count: int, seed: int = 0) -> MicroBatch:
    return MicroBatch.of_windows(windows(count, seed))


def windows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(5, 200, (count, 17))


def step(
    model: Llama,
    batches: Sequence[MicroBatch],
    *,
    clip: float = 0.0,
    precision: Precision = FP32,
    scaler: torch.amp.GradScaler | None = None,
    rate: float = 1e-3,
) -> StepResult:
    optimizer = build_optimizer(model.train(), OptimizerConfig(name="adamw", learning_rate=rate))
    return optimizer_step(model, optimizer, batches, precision=precision, scaler=scaler, gradient_clip=clip)


def gradients(model: Llama) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def new() -> Llama:
    return Llama(SHAPE).initialize(3)


@pytest.mark.parametrize("cut", [[1] * 8, [2, 2, 4], [5, 3]])
def test_accumulated_gradients_equal_one_large_batch(cut):
    data, whole, parts = micro_batch(8), new(), new()
    one = step(whole, [data])
    many = step(parts, [data[end - size : end] for end, size in zip(np.cumsum(cut), cut, strict=True)])
    assert many.loss == pytest.approx(one.loss, abs=1e-5) and many.target_tokens == one.target_tokens == 128
    assert many.grad_norm == pytest.approx(one.grad_norm, abs=1e-5)
    for name, gradient in gradients(parts).items():
        assert torch.allclose(gradient, gradients(whole)[name], atol=1e-5, rtol=1e-5), name
    for ours, theirs in zip(parts.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_micro_batches_with_fewer_targets_do_not_weigh_more():
    """Averaging micro-batch means would: the divisor is the target tokens of the whole step."""
    data = windows(4)
    data[2:, 5:] = IGNORE
    data[2:, :5] = np.abs(data[2:, :5])
    inputs = np.where(data == IGNORE, 7, data)  # ids that the embedding has; the targets decide what counts
    whole = new()
    targets = torch.from_numpy(data[:, 1:].copy())
    (whole.loss_sum(torch.from_numpy(inputs[:, :-1]), targets) / int((targets != IGNORE).sum())).backward()
    parts = new()
    counted = int((targets != IGNORE).sum())
    for half in (slice(0, 2), slice(2, 4)):
        (parts.loss_sum(torch.from_numpy(inputs[half, :-1]), targets[half]) / counted).backward()
    for name, gradient in gradients(parts).items():
        assert torch.allclose(gradient, gradients(whole)[name], atol=1e-6), name


def test_first_loss_is_close_to_ln_of_the_vocabulary():
    assert step(new(), [micro_batch(8)]).loss == pytest.approx(math.log(200), rel=0.05)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_recomputing_activations_changes_memory_and_not_the_loss(every):
    def held(model: Llama) -> int:
        """Bytes that autograd keeps at the end of the forward pass."""
        sizes: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        tokens = torch.from_numpy(windows(4))
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            model.train().loss_sum(tokens[:, :-1], tokens[:, 1:])
        return sum(sizes.values())

    plain, saving = new(), new()
    saving.checkpoint_every = every
    assert held(saving) < held(plain)
    one, other = step(plain, [micro_batch(4)]), step(saving, [micro_batch(4)])
    assert one == other
    assert all(torch.equal(g, gradients(plain)[name]) for name, g in gradients(saving).items())


def test_clipping_sees_the_unscaled_gradient():
    plain, scaled = new(), new()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    limit = 0.5 * step(new(), [micro_batch(4)]).grad_norm
    one = step(plain, [micro_batch(4)], clip=limit)
    other = step(scaled, [micro_batch(4)], clip=limit, scaler=scaler)
    assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-4)
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients(scaled).values()))
    assert norm == pytest.approx(limit, rel=1e-3)
    for ours, theirs in zip(scaled.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_clip_zero_never_clips():
    model = new()
    result = step(model, [micro_batch(4)], clip=0.0)
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients(model).values()))
    assert norm == pytest.approx(result.grad_norm, rel=1e-4)


def test_an_overflowing_fp16_step_leaves_the_weights_and_halves_the_scale():
    model, before = new(), new()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    result = step(model, [micro_batch(4)], precision=FP16, scaler=scaler)
    assert not result.applied and math.isfinite(result.loss)
    assert scaler.get_scale() == 2.0**39
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))


def test_fp16_step_is_close_to_fp32():
    half, full = new(), new()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    one, other = step(full, [micro_batch(8)]), step(half, [micro_batch(8)], precision=FP16, scaler=scaler)
    assert other.applied and other.loss == pytest.approx(one.loss, rel=1e-3)
    assert other.grad_norm == pytest.approx(one.grad_norm, rel=2e-2)
    assert all(p.dtype == torch.float32 and p.grad.dtype == torch.float32 for p in half.parameters())


def test_a_loss_that_is_not_a_number_leaves_the_weights():
    model = new()
    with torch.no_grad():
        model.norm.weight[0] = math.nan
    before = [p.detach().clone() for p in model.parameters()]
    result = step(model, [micro_batch(2)])
    assert not result.applied and math.isnan(result.loss)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True) if not b.isnan().any()
    )


@pytest.mark.parametrize("every", [0, 1])
def test_a_gradient_that_is_no_number_is_blamed_on_its_micro_batch_though_the_loss_is_one(every):
    model, calls = new(), itertools.count(1)
    model.checkpoint_every = every

    def spoil(_module, _inputs, states):
        return states + (0.0 * states).sqrt() if next(calls) in (2, 4) else states  # the root's slope at 0

    model.norm.register_forward_hook(spoil)
    result = step(model, [micro_batch(1, seed) for seed in range(5)])
    assert math.isfinite(result.loss) and not result.applied
    assert result.bad_parts == (2, 4) and model.gradient_hook is None


def test_a_step_reads_the_scale_with_everything_else_and_never_by_itself(monkeypatch):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    monkeypatch.setattr(scaler, "get_scale", lambda: pytest.fail("a second wait for the device"))
    assert step(new(), [micro_batch(2)] * 3, scaler=scaler).scale == 1024.0


def test_a_driver_without_memory_is_an_out_of_memory_too():
    assert is_out_of_memory(torch.AcceleratorError("CUDA error: out of memory"))
    assert not is_out_of_memory(torch.AcceleratorError("CUDA error: invalid device ordinal"))


def test_decay_falls_on_matrices_only():
    model = new()
    optimizer = build_optimizer(model, OptimizerConfig(name="adamw", learning_rate=1e-3, weight_decay=0.3))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        wanted = 0.3 if parameter.dim() == 2 and name != "embed.weight" else 0.0
        assert decay[id(parameter)] == wanted, name
    assert len(decay) == len(list(model.parameters()))


def test_our_adamw_is_the_textbooks():
    """Against the update written out in numpy, three steps."""
    model = new()
    optimizer = build_optimizer(model, OptimizerConfig(name="adamw", learning_rate=0.01))
    weight = model.layers[0].feed_forward.down.weight
    w, m, v = weight.detach().double().numpy().copy(), 0.0, 0.0
    for count in range(1, 4):
        optimizer_step(
            model, optimizer, [micro_batch(4, seed=count)], precision=FP32, scaler=None, gradient_clip=0.0
        )
        g = weight.grad.double().numpy()
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        w -= 0.01 * 0.1 * w
        w -= 0.01 * (m / (1 - 0.9**count)) / (np.sqrt(v / (1 - 0.95**count)) + 1e-8)
        np.testing.assert_allclose(weight.detach().numpy(), w, atol=2e-6)
