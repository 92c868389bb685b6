"""bf16 on a processor: known by its flags, trained in, resumed bit for bit. Without units it is emulated."""

from __future__ import annotations

import pytest

from ptbr_slm.system import bf16_units
from ptbr_slm.train.planning import precision
from ptbr_slm.train.reporting.metrics import read_metrics
from ptbr_slm.train.run import train

AMX = "flags\t\t: fpu sse avx2 avx512f avx512_bf16 amx_bf16 amx_tile amx_int8\n"
ZEN4 = "flags\t\t: fpu sse avx2 avx512f avx512_bf16\n"


@pytest.mark.parametrize(
    ("info", "limit", "units"),
    [
        (AMX, "", "AMX"), (AMX, "DEFAULT", "AMX"), (AMX, "avx512_core_amx", "AMX"),
        (AMX, "AVX512_CORE_AMX_FP16", "AMX"), (AMX, "AVX512_CORE_BF16", "AVX-512 BF16"),
        (AMX, "AVX512_CORE_VNNI", None), (AMX, "AVX2", None),
        (ZEN4, "", "AVX-512 BF16"), (ZEN4, "AVX2", None),
        ("flags\t\t: fpu sse avx2 avx512f\n", "", None), ("Features\t: fp asimd bf16\n", "", None),
    ],
)  # fmt: skip
def test_units_are_those_of_the_processor_that_onednn_may_use(tmp_path, info, limit, units):
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nmodel name\t: any\n{info}\nprocessor\t: 1\n{info}")
    assert bf16_units(file, {"ONEDNN_MAX_CPU_ISA": limit}) == units
    assert bf16_units(tmp_path / "none", {}) is None


@pytest.fixture
def amx(monkeypatch):
    monkeypatch.setattr(precision, "bf16_units", lambda: "AMX")


def losses(config) -> list[float]:
    records = read_metrics(config.output / "metrics.jsonl")
    return [record["loss"] for record in records if record["event"] == "step"]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_in_bf16_learns_as_one_in_fp32(amx, settings, recorder, tmp_path, optimizer):
    same = {"optimizer.name": optimizer}
    halves = settings({**same, "output": tmp_path / "bf16"})
    train(halves, recorder)
    whole = settings({**same, "output": tmp_path / "fp32", "precision": "fp32"})
    train(whole, recorder)
    assert losses(halves) != losses(whole)  # it did compute in bf16
    assert losses(halves) == pytest.approx(losses(whole), rel=0.02)


def test_a_run_in_bf16_goes_on_bit_for_bit(amx, settings, recorder, weights, tmp_path):
    whole = settings({"output": tmp_path / "whole", "optimizer.name": "muon", "checkpoint.every": 4})
    train(whole, recorder)
    resumed = settings({"output": tmp_path / "resumed", "optimizer.name": "muon",
                        "resume": str(whole.output / "checkpoints" / "step-00000004")})  # fmt: skip
    train(resumed, recorder)
    assert weights(resumed.output / "final") == weights(whole.output / "final")
