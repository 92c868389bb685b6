"""The bytes that each optimizer is computed to keep, against what the real one holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ptbr_slm.config import SIZES, ModelConfig
from ptbr_slm.train.config import OptimizerConfig
from ptbr_slm.train.planning.memory import (
    MUON_BATCH,
    NCCL_BYTES,
    STATES,
    buffer_bytes,
    estimate,
    state_bytes,
)
from ptbr_slm.train.planning.parameters import layer_matrices, parameters

torch = pytest.importorskip("torch", reason="falta o torch: pip install 'ptbr-slm[train]'")

from ptbr_slm.errors import SlmError  # noqa: E402
from ptbr_slm.model import Llama  # noqa: E402
from ptbr_slm.train.optim import build_optimizer  # noqa: E402
from ptbr_slm.train.optim.muon import (  # noqa: E402
    BATCH_ELEMENTS,
    Muon,
    NewtonSchulz,
)

GROUPED = ModelConfig(vocab_size=512, hidden_size=128, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=32,
                      intermediate_size=320, max_seq_len=64)  # fmt: skip
SHAPES = {"tied": GROUPED, "untied": replace(GROUPED, tie_embeddings=False), "nano": SIZES["nano"]}


def after_a_step(model: ModelConfig, name: str):  # type: ignore[no-untyped-def]
    llama = Llama(model).initialize(0)
    optimizer = build_optimizer(llama, OptimizerConfig(name=name, learning_rate=1e-3))
    for parameter in llama.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return llama, optimizer


def bytes_of(optimizer) -> int:  # type: ignore[no-untyped-def]
    """Of the distinct tensors of the state, tables shared by all parameters left out."""
    sizes: dict[int, int] = {}
    for state in optimizer.state.values():
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and value.dim() and not key.startswith("qmap"):
                sizes[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    return sum(sizes.values())


@pytest.mark.parametrize("shape", SHAPES)
def test_the_parameters_are_those_of_the_model(shape: str) -> None:
    model = SHAPES[shape]
    own = sorted(tuple(parameter.shape) for parameter in Llama(model).parameters() if parameter.dim() == 2)
    assert own == sorted(size for _, size in parameters(model) if len(size) == 2)
    total = sum(int(torch.Size(size).numel()) for _, size in parameters(model))
    assert total == model.num_parameters
    assert layer_matrices(model) == model.layer_parameters - 2 * model.hidden_size


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_state_is_what_the_optimizer_holds(shape: str, name: str) -> None:
    try:
        _, optimizer = after_a_step(SHAPES[shape], name)
    except SlmError as error:
        pytest.skip(f"{name} não roda aqui: {error.message}")
    assert state_bytes(SHAPES[shape], name) == pytest.approx(bytes_of(optimizer), rel=0.01)


@pytest.mark.parametrize("shape", SHAPES)
def test_muons_buffers_are_counted(shape: str) -> None:
    assert MUON_BATCH == BATCH_ELEMENTS
    _, optimizer = after_a_step(SHAPES[shape], "muon")
    assert isinstance(optimizer, Muon)
    newton_schulz = next(value for value in vars(optimizer)["_buffers"] if isinstance(value, NewtonSchulz))
    held = sum(t.nbytes for t in vars(newton_schulz).values() if isinstance(t, torch.Tensor))
    assert buffer_bytes(SHAPES[shape], "muon", precision="fp32") == held
    assert buffer_bytes(SHAPES[shape], "adamw", precision="fp32") == 0


def test_bytes_a_parameter_of_a_large_model_are_eight_two_and_four_to_eight() -> None:
    model = SIZES["400m"]
    of = {name: state_bytes(model, name) / model.num_parameters for name in STATES}
    assert of["adamw"] == 8 and 2 < of["adamw8bit"] < 2.1 and 4 < of["muon"] < 5


def test_fsdp_halves_what_is_kept_and_adds_what_it_gathers() -> None:
    def on(ranks: int, parallel: str):  # type: ignore[no-untyped-def]
        return estimate(SIZES["800m"], batch_size=1, seq_len=1024, checkpoint_every=1, precision="fp16",
                        ranks=ranks, parallel=parallel)  # fmt: skip

    alone, ddp, fsdp = on(1, "ddp"), on(2, "ddp"), on(2, "fsdp")
    assert ddp.total == alone.total + NCCL_BYTES and ddp.communication == 0  # gradients are the buckets
    for part in ("weights", "gradients", "optimizer"):
        assert getattr(fsdp, part) == pytest.approx(getattr(alone, part) / 2, abs=2)
    assert 0 < fsdp.communication < 0.7e9 and fsdp.total < 0.7 * alone.total
