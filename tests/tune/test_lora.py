"""Adapters: what they compute, what they leave alone, and what they become when they are merged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adapted_models import ADAPTED, ROWS, SHAPE, adapted
from torch import Tensor

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.model import IGNORE, Llama
from ptbr_slm.train.batches import random_batch
from ptbr_slm.train.config import OptimizerConfig
from ptbr_slm.train.optim import build_optimizer
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.train.step import autocast, optimizer_step
from ptbr_slm.tune.adapter_files import adapter_tensors
from ptbr_slm.tune.lora import TARGETS, LoraConfig, LowRank, add_adapters, trained_parameters

SHAPES = {
    "tied": SHAPE,
    "untied": replace(SHAPE, tie_embeddings=False),
    "normalised heads": replace(SHAPE, qk_norm=True),
}
CPU = torch.device("cpu")


def tokens(seed: int = 0, batch: int = 2, length: int = 24) -> Tensor:
    """(B, T) with the trained rows' tokens among them."""
    drawn = torch.randint(0, SHAPE.vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))
    drawn[:, ::5] = torch.tensor(ROWS)[torch.arange(len(drawn[0, ::5])) % len(ROWS)]
    return drawn


def merged(model: Llama) -> Llama:
    """A plain model with the merged weights."""
    weights = model.to_hf_weights()
    return Llama(model.config).load_hf_weights(lambda name, shape: weights[name])


def both(shape: ModelConfig) -> LoraConfig:
    return ADAPTED if shape.tie_embeddings else replace(ADAPTED, head_rows=ROWS[:2])


def reference_logits(model: Llama, ids: Tensor) -> Tensor:
    """Through weights made whole by autograd: W + s B A, and the embedding with the trained rows in it."""
    plain = Llama(model.config)
    weights = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        if name in weights:
            weights[name] = parameter
    for name, module in model.named_modules():
        if isinstance(module, LowRank):
            weight = name.removesuffix("adapter") + "weight"
            for (_, a, b), outputs in zip(module.pairs(), module.outputs.values(), strict=True):
                delta = torch.zeros_like(weights[weight])
                delta = torch.cat((delta[: outputs.start], module.scaling * b @ a, delta[outputs.stop :]))
                weights[weight] = weights[weight] + delta
    for name, rows in (("embed", model.embed_rows), ("head", model.head_rows)):
        if rows is not None and f"{name}.weight" in weights:
            weights[f"{name}.weight"] = weights[f"{name}.weight"].index_copy(0, rows.ids, rows.values)
    logits: Tensor = torch.func.functional_call(plain, weights, (ids,), tie_weights=True)
    return logits


@pytest.mark.parametrize("shape", SHAPES)
def test_a_new_adapter_changes_nothing(shape: str) -> None:
    plain = Llama(SHAPES[shape]).initialize(0)
    model = adapted(SHAPES[shape], both(SHAPES[shape]), moved=False)
    assert torch.allclose(model(tokens()), plain(tokens()), atol=1e-6)
    for name, weight in plain.to_hf_weights().items():
        np.testing.assert_array_equal(model.to_hf_weights()[name], weight, err_msg=name)


@pytest.mark.parametrize("shape", SHAPES)
def test_merged_weights_give_the_logits_of_the_adapted_model(shape: str) -> None:
    model = adapted(SHAPES[shape], both(SHAPES[shape]))
    with torch.no_grad():
        ours, plain = model(tokens()), merged(model)(tokens())
        assert (ours - plain).abs().max() <= 1e-4
        base = Llama(model.config).initialize(0)(tokens())
    assert (ours - base).abs().max() > 0.1  # the adapter is not nothing


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss", ["chunked", "formed in forward", "plain"])
def test_gradients_are_those_of_autograd_through_whole_weights(loss: str, shape: str) -> None:
    config = both(SHAPES[shape])
    model, other = (adapted(SHAPES[shape], config).double().train() for _ in range(2))
    ids, targets = tokens(), tokens(1)
    targets[0, :9] = IGNORE
    model.loss = "plain" if loss == "plain" else "chunked"
    if loss == "formed in forward":
        model.backward_scale = torch.tensor(0.5, dtype=torch.float64)
    ours = model.loss_sum(ids, targets)
    (0.5 * ours).backward()
    logits = reference_logits(other, ids).flatten(0, 1)
    theirs = F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE, reduction="sum")
    (0.5 * theirs).backward()
    tolerance = 1e-5 if loss == "plain" else 1e-9  # the plain loss rounds its logits to fp32
    assert ours.item() == pytest.approx(theirs.item(), rel=tolerance)
    expected = dict(other.named_parameters())
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(trained) == 4 * SHAPE.num_layers * 2 + (1 if model.config.tie_embeddings else 2)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, name
            continue
        assert parameter.grad is not None and expected[name].grad is not None, name
        torch.testing.assert_close(
            parameter.grad, expected[name].grad, rtol=tolerance, atol=tolerance, msg=name
        )


def test_gradients_are_the_same_when_layers_are_recomputed() -> None:
    found = []
    for every in (0, 1):
        model = adapted().train()
        model.checkpoint_every = every
        model.loss_sum(tokens(), tokens(1)).backward()
        found.append([p.grad for p in model.parameters() if p.requires_grad])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_steps_move_the_adapter_and_leave_every_frozen_bit(precision: str) -> None:
    model = adapted(moved=False).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, OptimizerConfig(name="adamw", learning_rate=0.01, weight_decay=0.1))
    losses = []
    for _ in range(6):
        batch = random_batch(SHAPE.vocab_size, 2, 24)
        result = optimizer_step(
            model, optimizer, [batch], precision=Precision(precision, ""), scaler=None, gradient_clip=1.0
        )
        losses.append(result.loss)
        assert result.applied
    assert losses[-1] < losses[0] - 0.05
    for name, parameter in model.named_parameters():
        same = torch.equal(parameter, before[name])
        assert same == (not parameter.requires_grad), name
        assert parameter.dtype == torch.float32
    assert model.head.weight is model.embed.weight and model.head_rows is model.embed_rows


def test_in_fp16_under_a_loss_scale_adapters_move_and_steps_are_not_skipped_for_ever() -> None:
    """What a T4 does, with the CPU's fp16 products: Adam's small updates reach fp32 adapters."""
    model = adapted(moved=False).train()
    optimizer = build_optimizer(model, OptimizerConfig(name="adamw", learning_rate=1e-3))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**22)  # overflows at first, and has to come down
    norms, applied = [], []
    for step in range(16):
        result = optimizer_step(
            model,
            optimizer,
            [random_batch(SHAPE.vocab_size, 2, 24, seed=step % 4)],
            precision=Precision("fp16", ""),
            scaler=scaler,
            gradient_clip=1.0,
        )
        applied.append(result.applied)
        b = [module.b for module in model.modules() if isinstance(module, LowRank)]
        norms.append(float(torch.cat([tensor.detach().flatten() for tensor in b]).norm()))
    first = applied.index(True)
    assert 0 < first < 16 and all(applied[first:])
    assert all(
        later > before for before, later in zip(norms[first:], norms[first + 1 : first + 8], strict=False)
    )
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())


def test_the_trained_rows_are_those_of_embedding_and_head_alike() -> None:
    model = adapted()
    weights = model.to_hf_weights()
    assert "lm_head.weight" not in weights
    assert model.embed_rows is not None
    np.testing.assert_array_equal(
        weights["model.embed_tokens.weight"][list(ROWS)], model.embed_rows.values.detach().numpy()
    )
    others = [i for i in range(SHAPE.vocab_size) if i not in ROWS]
    np.testing.assert_array_equal(
        weights["model.embed_tokens.weight"][others], model.embed.weight.detach().numpy()[others]
    )


def test_loading_weights_fills_the_base_and_lets_the_rows_begin_anew() -> None:
    model, other = adapted(moved=False), Llama(SHAPE).initialize(5)
    weights = other.to_hf_weights()
    model.load_hf_weights(lambda name, shape: weights[name])
    assert torch.allclose(model(tokens()), other(tokens()), atol=1e-6)


def test_only_the_matrices_that_were_chosen_have_adapters() -> None:
    model = adapted(config=LoraConfig(rank=2, targets=("q_proj", "v_proj", "up_proj")))
    names = {name.split(".")[-3] for name, _ in adapter_tensors(model)}
    assert names == {"q_proj", "v_proj", "up_proj"}
    with torch.no_grad():
        assert (model(tokens()) - merged(model)(tokens())).abs().max() <= 1e-4
    k_proj = "model.layers.0.self_attn.k_proj.weight"
    base = Llama(SHAPE).initialize(0).to_hf_weights()
    np.testing.assert_array_equal(model.to_hf_weights()[k_proj], base[k_proj])


def test_a_rank_of_16_at_all_matrices_trains_a_few_percent_of_the_85m() -> None:
    from ptbr_slm.config import SIZES

    with torch.device("meta"):
        model = Llama(SIZES["85m"])
    with torch.device("cpu"):
        share = trained_parameters(add_adapters(model, LoraConfig())) / SIZES["85m"].num_parameters
    assert len(TARGETS) == 7 and 0.02 < share < 0.05


def test_samples_with_a_cache_are_those_of_the_merged_model() -> None:
    from ptbr_slm.model import KVCache

    model = adapted().eval()
    plain = merged(model).eval()
    ids = tokens(batch=1)
    with torch.no_grad(), autocast(CPU, Precision("fp32", "")):
        caches = [KVCache(SHAPE, 1, 32, model.embed.weight) for _ in range(2)]
        for start, stop in ((0, 10), (10, 11), (11, 24)):
            one, other = (m(ids[:, start:stop], c) for m, c in zip((model, plain), caches, strict=True))
            assert (one - other).abs().max() <= 1e-4


def test_a_token_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(SlmError, match="token 160") as caught:
        adapted(config=replace(ADAPTED, embed_rows=(160,)))
    assert caught.value.code == "E_ADAPTER"
