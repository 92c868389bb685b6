"""Every optimizer: what it does to which parameter, its state in checkpoints, its memory before the step."""

from __future__ import annotations

import importlib.util
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.model import Llama
from ptbr_slm.storage.weights import write_safetensors
from ptbr_slm.train.batches import MicroBatch
from ptbr_slm.train.config import OptimizerConfig, default_learning_rate
from ptbr_slm.train.optim import (
    build_optimizer,
    load_optimizer_arrays,
    optimizer_arrays,
    set_learning_rate,
)
from ptbr_slm.train.optim.build import embedding_rate_factor
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.train.run import train
from ptbr_slm.train.step import optimizer_step

SHAPE = ModelConfig(vocab_size=200, hidden_size=64, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=32,
                    intermediate_size=128, max_seq_len=32)  # fmt: skip


def new(name: str) -> tuple[Llama, torch.optim.Optimizer]:
    model = Llama(SHAPE).initialize(3).train()
    return model, build_optimizer(model, OptimizerConfig(name=name, learning_rate=0.01))


def micro_batch(seed: int) -> MicroBatch:
    return MicroBatch.of_windows(np.random.default_rng(seed).integers(5, 200, (4, 17)))


def steps(model: Llama, optimizer: torch.optim.Optimizer, seeds: range) -> list[float]:
    results = []
    for seed in seeds:
        set_learning_rate(optimizer, 0.01 / (1 + seed))
        result = optimizer_step(
            model,
            optimizer,
            [micro_batch(seed)],
            precision=Precision("fp32", ""),
            scaler=None,
            gradient_clip=1.0,
        )
        results.append(result.loss)
    return results


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"pip install {package}")


NAMES = ["adamw", "muon", pytest.param("adamw8bit", marks=needs("bitsandbytes"))]


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_optimizer_goes_on_bit_for_bit(name, tmp_path):
    whole, its = new(name)
    steps(whole, its, range(6))
    first, optimizer = new(name)
    steps(first, optimizer, range(3))
    file = tmp_path / "optimizer.safetensors"
    write_safetensors(file, optimizer_arrays(first, optimizer))
    second, another = new(name)
    second.load_state_dict(first.state_dict())
    load_optimizer_arrays(second, another, load_file(file))
    steps(second, another, range(3, 6))
    for (key, ours), theirs in zip(second.named_parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs), key
    for key, array in optimizer_arrays(second, another).items():
        assert np.array_equal(array, optimizer_arrays(whole, its)[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_each_learns(name):
    model, optimizer = new(name)
    before = steps(model, optimizer, range(1))[0]
    losses = [
        optimizer_step(
            model,
            optimizer,
            [micro_batch(0)],
            precision=Precision("fp32", ""),
            scaler=None,
            gradient_clip=1.0,
        ).loss
        for _ in range(25)
    ]
    assert losses[-1] < before - 1.0


@pytest.mark.parametrize("name", NAMES)
def test_all_state_is_there_before_the_first_step(name):
    model, optimizer = new(name)
    before = {key: array.shape for key, array in optimizer_arrays(model, optimizer).items()}
    steps(model, optimizer, range(1))
    assert {key: array.shape for key, array in optimizer_arrays(model, optimizer).items()} == before
    assert {key.partition(".")[2] for key in before} == {key for key, _ in model.named_parameters()}


def test_state_of_another_optimizer_is_refused_in_words():
    model, optimizer = new("adamw")
    arrays = optimizer_arrays(model, optimizer)
    with pytest.raises(SlmError) as caught:
        load_optimizer_arrays(*new("muon"), arrays)
    assert caught.value.code == "E_CONFIG_CHANGED" and "momentum" in caught.value.message


def test_state_of_another_model_is_refused():
    model, optimizer = new("muon")
    arrays = optimizer_arrays(model, optimizer)
    arrays["momentum.layers.0.attention.out.weight"] = np.zeros((3, 3), np.float32)
    with pytest.raises(ValueError, match=r"attention\.out"):
        load_optimizer_arrays(model, optimizer, arrays)
    arrays.pop("exp_avg.norm.weight")
    with pytest.raises(ValueError, match=r"norm\.weight"):
        load_optimizer_arrays(model, optimizer, arrays)


@needs("bitsandbytes")
def test_eight_bit_moments_take_two_bytes_a_parameter_and_follow_adamw():
    (half, eight), (full, plain) = new("adamw8bit"), new("adamw")
    arrays = optimizer_arrays(half, eight)
    sizes = {
        key: array.nbytes
        for key, array in arrays.items()
        if key.endswith("layers.0.feed_forward.down.weight")
    }
    elements = 64 * 128
    assert sum(sizes.values()) < 2 * elements + 2 * 1024 + 2 * 4 * elements / 256 + 16
    ours, theirs = steps(half, eight, range(8)), steps(full, plain, range(8))
    assert ours == pytest.approx(theirs, rel=0.01)


def test_without_a_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(SlmError) as caught:
        new("adamw8bit")
    text = str(caught.value)
    assert caught.value.code == "E_OPTIMIZER"
    assert "ptbr-slm[8bit]" in text and "--optimizer muon" in text and "torchao" in text


def test_a_kernel_that_fails_or_computes_nonsense_on_this_device_gives_way_to_the_next_package(monkeypatch):
    class Idle(torch.optim.SGD):
        def step(self, closure=None):
            return None

    def broken(groups):
        raise RuntimeError("no kernel image is available for execution on the device")

    makers = {
        "one": broken,
        "two": lambda groups: Idle(groups),
        "three": lambda groups: torch.optim.AdamW(groups),
    }
    monkeypatch.setattr("ptbr_slm.train.optim.adamw.MAKERS", makers)
    _, optimizer = new("adamw8bit")
    assert type(optimizer) is torch.optim.AdamW
    del makers["three"]
    with pytest.raises(SlmError, match="no kernel image") as caught:
        new("adamw8bit")
    assert "passo de teste errado" in caught.value.message


def test_muon_takes_the_matrices_of_the_layers_and_adamw_the_rest():
    model, optimizer = new("muon")
    keys = optimizer_arrays(model, optimizer)
    for name, parameter in model.named_parameters():
        muon = name.startswith("layers.") and parameter.dim() == 2
        assert (f"momentum.{name}" in keys) is muon and (f"exp_avg.{name}" in keys) is not muon


def test_muons_learning_rates_move_together():
    _, optimizer = new("muon")
    set_learning_rate(optimizer, 0.02)
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.2]


def test_muons_embedding_rate_falls_with_the_width_and_is_never_above_what_was_measured():
    assert [embedding_rate_factor(width) for width in (64, 192, 768, 1536)] == [10.0, 10.0, 2.5, 1.25]


def test_default_rates_fall_with_size_and_are_larger_for_muon():
    for size in (2_000_000, 87_500_000, 792_000_000):
        assert default_learning_rate(size, "adamw8bit") == default_learning_rate(size)
        assert default_learning_rate(size) < default_learning_rate(size, "muon") < 0.01
    assert default_learning_rate(2_000_000, "muon") > default_learning_rate(792_000_000, "muon")


@pytest.mark.parametrize("name", ["muon", pytest.param("adamw8bit", marks=needs("bitsandbytes"))])
def test_a_whole_run_resumed_from_its_middle_ends_in_the_same_weights(name, settings, weights, tmp_path):
    values = {"optimizer.name": name}
    whole = weights(train(settings(values)).model)
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "run", other)
    for gone in ("final", "report", "checkpoints/step-00000008"):
        shutil.rmtree(other / gone)
    (other / "checkpoints" / "latest").write_text("step-00000004\n")
    resumed = train(settings({**values, "output": other}))
    assert weights(resumed.model) == whole


def test_another_optimizer_over_a_runs_checkpoint_is_refused_in_words(settings):
    train(settings({"max_steps": 4}))
    with pytest.raises(SlmError) as caught:
        train(settings({"max_steps": 8, "optimizer.name": "muon", "allow_config_change": True}))
    assert caught.value.code == "E_CONFIG_CHANGED" and "--init-from" in caught.value.hint


def test_adamw8bit_without_a_package_is_refused_before_the_run_folder_is_made(settings, monkeypatch):
    monkeypatch.setattr("ptbr_slm.train.optim.adamw.MAKERS", {})
    config = settings({"optimizer.name": "adamw8bit"})
    with pytest.raises(SlmError) as caught:
        train(config)
    assert caught.value.code == "E_OPTIMIZER" and not config.output.exists()
