"""The planner's bytes and operations of a model whose adapters are trained, against PyTorch's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from adapted_models import adapted

from ptbr_slm.config import SIZES, ModelConfig
from ptbr_slm.model import Llama
from ptbr_slm.train.batches import random_batch
from ptbr_slm.train.config import OptimizerConfig
from ptbr_slm.train.optim import build_optimizer
from ptbr_slm.train.planning.activations import measured_peak_bytes, measured_saved_bytes
from ptbr_slm.train.planning.memory import estimate, saved_tensors
from ptbr_slm.train.planning.parameters import Adapters
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.train.planning.speed import flops_per_token
from ptbr_slm.train.step import autocast
from ptbr_slm.tune.lora import LoraConfig, trained_parameters

GROUPED = ModelConfig(vocab_size=512, hidden_size=128, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=32,
                      intermediate_size=320, max_seq_len=256)  # fmt: skip
SHAPES = {
    "grouped": GROUPED,
    "wide vocabulary": replace(GROUPED, vocab_size=4096, num_layers=2),
    "normalised heads": replace(GROUPED, qk_norm=True),
    "untied": replace(GROUPED, tie_embeddings=False, num_layers=2),
}
RANK, ROWS = 8, (5, 6)


def adapters_of(shape: ModelConfig) -> Adapters:
    return Adapters(rank=RANK, rows=len(ROWS) * (1 if shape.tie_embeddings else 2))


PRECISIONS = {"fp32": Precision("fp32", ""), "bf16": Precision("bf16", "")}
CPU = torch.device("cpu")


def network(shape: ModelConfig, every: int, loss: str) -> Llama:
    config = LoraConfig(rank=RANK, embed_rows=ROWS, head_rows=() if shape.tie_embeddings else ROWS)
    model = adapted(shape, config).train()
    model.checkpoint_every = every
    model.loss = "plain" if loss == "plain" else "chunked"
    if loss == "formed in forward":
        model.backward_scale = torch.tensor(1.0)
    return model


def forward(model: Llama, batch_size: int, seq_len: int, precision: str) -> torch.Tensor:
    batch = random_batch(model.config.vocab_size, batch_size, seq_len).to(CPU)
    with autocast(CPU, PRECISIONS[precision]):
        return model.loss_sum(batch.tokens, batch.targets)


CASES = [
    # loss, shape, checkpoint_every, precision
    ("chunked", "grouped", 0, "fp32"),
    ("chunked", "wide vocabulary", 2, "bf16"),
    ("chunked", "normalised heads", 2, "bf16"),
    ("chunked", "untied", 0, "fp32"),
    ("plain", "grouped", 2, "fp32"),
    ("plain", "untied", 0, "bf16"),
]


@pytest.mark.parametrize(("loss", "shape", "every", "precision"), CASES)
def test_saved_tensors_are_those_that_autograd_keeps(
    loss: str, shape: str, every: int, precision: str
) -> None:
    model = network(SHAPES[shape], every, loss)
    predicted = saved_tensors(
        SHAPES[shape],
        batch_size=2,
        seq_len=128,
        checkpoint_every=every,
        precision=precision,
        device="cpu",
        loss=loss,
        adapters=adapters_of(SHAPES[shape]),
    )
    measured = measured_saved_bytes(model, lambda: forward(model, 2, 128, precision))
    assert predicted == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize(
    ("loss", "shape", "every", "precision"),
    [
        *CASES,
        ("formed in forward", "grouped", 0, "bf16"),
        ("formed in forward", "wide vocabulary", 0, "fp32"),
    ],
)
def test_predicted_peak_is_the_allocators_within_ten_percent(
    loss: str, shape: str, every: int, precision: str
) -> None:
    model = network(SHAPES[shape], every, loss)
    found = estimate(
        SHAPES[shape],
        batch_size=2,
        seq_len=256,
        checkpoint_every=every,
        precision=precision,
        device="cpu",
        loss="plain" if loss == "plain" else "chunked",
        adapters=adapters_of(SHAPES[shape]),
    )
    predicted = found.autocast_cache + found.activations + found.logits + found.workspace
    measured = measured_peak_bytes(lambda: forward(model, 2, 256, precision))
    assert predicted == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_gradients_and_moments_are_those_that_exist(shape: str) -> None:
    config, adapters = SHAPES[shape], adapters_of(SHAPES[shape])
    model = network(config, 0, "chunked")
    optimizer = build_optimizer(model, OptimizerConfig(name="adamw", learning_rate=0.1))
    assert adapters.count(config) == trained_parameters(model)
    found = estimate(
        config,
        batch_size=1,
        seq_len=32,
        checkpoint_every=0,
        precision="fp32",
        device="cpu",
        adapters=adapters,
    )
    assert found.weights == 4 * sum(p.numel() for p in model.parameters())
    assert found.gradients == 4 * trained_parameters(model)
    moments = sum(
        tensor.numel() * 4
        for state in optimizer.state.values()
        for key, tensor in state.items()
        if key != "step"
    )
    assert found.optimizer == moments


def test_frozen_weights_cost_a_third_less_work_and_an_800m_fits_a_t4_with_room_to_spare() -> None:
    adapters = Adapters(rank=16, rows=2)
    full, low = (flops_per_token(SIZES["800m"], 1024, adapters=a) for a in (None, adapters))
    assert 0.66 < low / full < 0.75
    sizes = {
        a: estimate(
            SIZES["800m"], batch_size=1, seq_len=1024, checkpoint_every=0, precision="fp16", adapters=a
        ).total
        for a in (None, adapters)
    }
    assert sizes[adapters] < 0.6 * sizes[None]
