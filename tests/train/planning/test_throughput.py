"""MFU: what is known is a share between 0 and 1, what is not is left out, and the trainer records it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ptbr_slm.config import SIZES
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.train.planning.speed import T4, Throughput, flops_per_token, gemm_flops, throughput

torch = pytest.importorskip("torch", reason="falta o torch: pip install 'ptbr-slm[train]'")

CPU = torch.device("cpu")


def test_mfu_is_model_flops_over_the_peak_of_all_devices() -> None:
    work = flops_per_token(SIZES["85m"], 1024)
    two = Throughput(flops_per_token=work, ranks=2, nameplate=T4.nameplate("fp16"), gemm=22e12)
    shares = two.of(46_000)
    assert shares["mfu"] == pytest.approx(46_000 * work / 2 / 65e12, abs=1e-4)
    assert shares["mfu_gemm"] == pytest.approx(46_000 * work / 2 / 22e12, abs=1e-4)


def test_what_is_not_known_is_left_out_and_never_zero() -> None:
    unknown = Throughput(flops_per_token=1, ranks=1, nameplate=None, gemm=None)
    assert unknown.of(1000) == {} and unknown.peaks == {}
    assert replace(unknown, gemm=1e9).of(0.0) == {}  # before the first step


def test_the_product_is_measured_on_a_cpu_and_remembered() -> None:
    first = gemm_flops(CPU, "fp32", torch.get_num_threads())
    assert first is not None and 1e8 < first < 1e14
    assert gemm_flops(CPU, "fp32", torch.get_num_threads()) == first
    here = throughput(SIZES["nano"], 64, CPU, Precision("fp32", ""))
    assert here.gemm == first and here.nameplate is None
    assert throughput(SIZES["nano"], 64, CPU, Precision("fp32", ""), measure=False).gemm is None
