"""What is set before a GPU is used, as PyTorch itself then says it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from ptbr_slm.config import SIZES
from ptbr_slm.train import find_lr, gpu_settings, run
from ptbr_slm.train.gpu_settings import ALLOCATOR, EXPANDABLE, prepare_gpu
from ptbr_slm.train.planning.memory import NCCL_BYTES, estimate

NAMES = (ALLOCATOR, "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
linux_only = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="só o Linux tem segmentos que crescem"
)


@pytest.fixture
def cards(monkeypatch):
    """Two cards that PyTorch can use, it seems, and nothing set; what the test sets goes again."""
    for name in NAMES:
        monkeypatch.setenv(name, "")
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_fp16_reduced_precision_reduction
    monkeypatch.setattr(gpu_settings, "visible_cards", lambda: 2)
    yield
    matmul.allow_fp16_reduced_precision_reduction = before


@linux_only
def test_a_run_on_a_gpu_lets_segments_grow_and_sums_in_fp32(settings, cards):
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = True
    prepare_gpu(settings())
    assert os.environ[ALLOCATOR] == EXPANDABLE
    assert not torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction


@pytest.mark.parametrize("name", NAMES)
def test_an_allocator_that_the_user_has_set_up_stays(settings, cards, monkeypatch, name):
    monkeypatch.setenv(name, "max_split_size_mb:128")
    prepare_gpu(settings())
    assert {os.environ[one] for one in NAMES} == {"", "max_split_size_mb:128"}


def test_a_run_without_a_gpu_sets_nothing(settings, cards, monkeypatch):
    prepare_gpu(settings({"device": "cpu"}))
    monkeypatch.setattr(gpu_settings, "visible_cards", lambda: 0)
    prepare_gpu(settings())
    assert not any(os.environ[name] for name in NAMES)


@linux_only
def test_pytorch_reads_it_though_it_was_imported_before():
    code = (
        "import torch; from ptbr_slm.train import gpu_settings as g; g._grow_segments()\n"
        "print(torch._C._accelerator_getAllocatorSettings())"
    )
    environment = {key: value for key, value in os.environ.items() if key not in NAMES}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == EXPANDABLE


@pytest.mark.parametrize("command", ["train", "find_lr"])
def test_it_is_set_before_the_device_is_looked_at(settings, monkeypatch, command):
    calls: list[str] = []

    def stop(*_arguments, **_keywords):
        calls.append("device")
        raise RuntimeError("far enough")

    module = {"train": run, "find_lr": find_lr}[command]
    monkeypatch.setattr(module, "prepare_gpu", lambda config: calls.append("set"))
    monkeypatch.setattr(run, "check_device", stop)
    monkeypatch.setattr("ptbr_slm.train.spec.make_plan", stop)
    with pytest.raises(RuntimeError, match="far enough"):
        getattr(module, command)(settings())
    assert calls == ["set", "device"]


def test_the_plan_of_several_ranks_has_nccls_buffers_beside_the_context():
    def context(ranks: int, device: str = "cuda") -> int:
        return estimate(
            SIZES["85m"],
            batch_size=1,
            seq_len=64,
            checkpoint_every=0,
            precision="fp16",
            ranks=ranks,
            device=device,
        ).context

    assert context(2) - context(1) == NCCL_BYTES == 38_535_168  # 36.8 MiB: four channels of three buffers
    assert context(2, "cpu") == 0
