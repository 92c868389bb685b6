"""Muon: orthogonal updates, their scale, the fused matrices taken apart, and its work shared over ranks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.multiprocessing
from ranks import free_port
from torch.optim._muon import _zeropower_via_newtonschulz as bf16_reference

from ptbr_slm.config import ModelConfig
from ptbr_slm.model import Llama
from ptbr_slm.train.batches import MicroBatch
from ptbr_slm.train.config import OptimizerConfig
from ptbr_slm.train.optim import build_optimizer, muon
from ptbr_slm.train.optim.muon import JORDAN, NewtonSchulz, compute_dtype, update_scale
from ptbr_slm.train.parallel.world import SINGLE_PROCESS, Ranks
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.train.step import optimizer_step

SHAPE = ModelConfig(vocab_size=200, hidden_size=64, num_layers=3, num_heads=2, num_kv_heads=1, head_dim=32,
                    intermediate_size=128, max_seq_len=32)  # fmt: skip


def orthogonal(matrices: torch.Tensor, coefficients=None) -> torch.Tensor:
    """(count, m, n) -> the same through fresh buffers."""
    count, m, n = matrices.shape
    buffers = NewtonSchulz(count * m * n, count * m * m, torch.float32, torch.device("cpu"))
    x = buffers.buffer(count, m, n)
    x.copy_(matrices)
    return buffers.orthogonalize(x, *([coefficients] if coefficients else [])).clone()


def gradient(count: int, m: int, n: int, seed: int = 0) -> torch.Tensor:
    """Matrices with singular values over two orders of magnitude."""
    draw = torch.Generator().manual_seed(seed)
    u, _, v = torch.linalg.svd(torch.randn(count, m, n, generator=draw), full_matrices=False)
    return u * torch.logspace(0, -2, m) @ v


@pytest.mark.parametrize(("m", "n"), [(32, 32), (64, 128), (16, 256)])
def test_singular_values_come_near_one_and_directions_stay(m, n):
    x = gradient(3, m, n)
    y = orthogonal(x)
    values = torch.linalg.svdvals(y)
    assert values.min() > 0.6 and values.max() < 1.3
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    aligned = (u.mT @ y @ v.mT).diagonal(dim1=-2, dim2=-1)
    assert torch.allclose(aligned, values.sort(descending=True).values, atol=0.7) and aligned.min() > 0.6


@pytest.mark.parametrize(("n", "error"), [(64, 1e-5), (96, 1e-3)])
def test_it_is_torchs_formula_in_fp32(n, error):
    """Wide matrices go through their Gram matrices, whose rounding is a hundredth of bf16's."""
    x = gradient(1, 48, n)[0]
    wanted = x / x.norm()
    for a, b, c in JORDAN:
        gram = wanted @ wanted.T
        wanted = a * wanted + (b * gram + c * gram @ gram) @ wanted
    ours = orthogonal(x[None], JORDAN)[0]
    assert (ours - wanted).norm() < error * wanted.norm()
    theirs = bf16_reference(x, JORDAN[0], len(JORDAN), 1e-7).float()
    assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.99


def test_a_batch_gives_what_each_matrix_gives_alone():
    x = gradient(4, 32, 64)
    together = orthogonal(x)
    for index in range(4):
        assert torch.allclose(together[index], orthogonal(x[index : index + 1])[0], atol=1e-5)


def test_a_gradient_of_zero_gives_no_update():
    assert not orthogonal(torch.zeros(2, 8, 8)).any()


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((6, 0), torch.float32), ((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_bf16_is_chosen_by_capability_never_by_claim(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    assert compute_dtype(torch.device("cuda", 0)) is dtype
    assert compute_dtype(torch.device("cpu")) is torch.float32
    assert compute_dtype(torch.device("cpu"), "bf16") is torch.bfloat16


@pytest.mark.parametrize(("m", "n"), [(64, 64), (48, 160)])
@pytest.mark.parametrize("size", [1.0, 1e-9])
def test_the_halves_of_a_t4_are_nearer_to_fp32_than_bf16_is_however_small_a_gradient(m, n, size):
    wanted, found = orthogonal(gradient(1, m, n))[0], {}
    for dtype in (torch.float16, torch.bfloat16):
        x, buffers = gradient(1, m, n)[0] * size, NewtonSchulz(m * n, m * m, dtype, torch.device("cpu"))
        part = muon.Part(torch.nn.Parameter(torch.zeros(m, n)), 0, m)
        part.parameter.grad = x
        muon.fill(buffers.buffer(1, m, n)[0], part)
        y = buffers.orthogonalize(buffers.buffer(1, m, n))[0].float()
        found[dtype] = float((y - wanted).norm() / wanted.norm())
    assert found[torch.float16] < 0.01 and found[torch.float16] < found[torch.bfloat16] / 4


def test_updates_have_the_size_of_adamws():
    for m, n in ((64, 64), (64, 256)):
        update = orthogonal(gradient(1, m, n)) * update_scale(m, n)
        assert update.square().mean().sqrt() == pytest.approx(0.2 * math.sqrt(1), rel=0.25)


def batch(seed: int = 0) -> MicroBatch:
    return MicroBatch.of_windows(windows(seed))


def windows(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(5, 200, (4, 17))


def trained(ranks: Ranks = SINGLE_PROCESS, steps: int = 3) -> Llama:
    model = Llama(SHAPE).initialize(3).train()
    optimizer = build_optimizer(model, OptimizerConfig(name="muon", learning_rate=0.01), ranks)
    for seed in range(steps):
        optimizer_step(model, optimizer, [batch(seed)], precision=Precision("fp32", ""), scaler=None,
                       gradient_clip=1.0)  # fmt: skip
    return model


def test_q_k_v_gate_and_up_are_orthogonalised_each_for_itself():
    before, after = Llama(SHAPE).initialize(3), trained(steps=1)
    decay = 1 - 0.01 * OptimizerConfig().weight_decay

    def moved(name: str, sizes: tuple[int, ...]) -> list[torch.Tensor]:
        difference = after.get_parameter(name) - decay * before.get_parameter(name)
        return list(difference.detach().split(sizes))

    parts = moved("layers.0.attention.qkv.weight", (64, 32, 32))
    parts += moved("layers.1.feed_forward.gate_up.weight", (128, 128))
    for part in parts:
        values = torch.linalg.svdvals(part) / (0.01 * update_scale(*part.shape))
        assert values.max() < 1.35 and values.median() > 0.6


def test_large_matrices_go_in_several_batches_with_the_same_result(monkeypatch):
    whole = trained()
    monkeypatch.setattr(muon, "BATCH_ELEMENTS", 2 * 64 * 128)
    for (name, ours), theirs in zip(trained().named_parameters(), whole.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6), name


class Stub(Ranks):
    """A rank of gloo, with the one word that Muon needs."""

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        torch.distributed.all_reduce(tensor)
        return tensor


def _rank(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.save(trained(Stub(rank, 2, rank)).state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_give_the_weights_of_one(tmp_path):
    """Each orthogonalises half of the matrices; uneven batches are padded."""
    port = free_port()
    torch.multiprocessing.spawn(_rank, (port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, alone in trained().state_dict().items():
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(first[name], alone, atol=1e-6), name


def test_a_step_allocates_nothing_of_size_after_a_weight_has_changed():
    """An out of memory then finds the weights as they were. (oneDNN takes 14 KiB whatever the shape.)"""
    shape = replace(SHAPE, hidden_size=192, num_heads=3, num_kv_heads=1, head_dim=64)
    model = Llama(shape).initialize(3).train()
    optimizer = build_optimizer(model, OptimizerConfig(name="muon", learning_rate=0.01))
    model.loss_sum(torch.from_numpy(windows()[:, :-1]), torch.from_numpy(windows()[:, 1:])).backward()
    with torch.profiler.profile(
        profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]
    ) as profile:
        optimizer.step()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < 4 * 64 * 192  # the smallest matrix of the layers


def test_an_overflowing_fp16_step_leaves_muons_weights_and_momentum():
    model = Llama(SHAPE).initialize(3).train()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = build_optimizer(model, OptimizerConfig(name="muon", learning_rate=0.01))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    result = optimizer_step(model, optimizer, [batch()], precision=Precision("fp16", ""), scaler=scaler,
                            gradient_clip=1.0)  # fmt: skip
    assert not result.applied and scaler.get_scale() == 2.0**39
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    assert not any(state["momentum"].any() for state in optimizer.state.values() if "momentum" in state)
