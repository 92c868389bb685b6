"""The precision follows the compute capability, and what was asked is given or refused."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ptbr_slm.errors import SlmError
from ptbr_slm.train.planning import precision
from ptbr_slm.train.planning.precision import choose_precision


@pytest.mark.parametrize(
    ("device", "capability", "name", "scaler"),
    [("cuda", (7, 5), "fp16", True), ("cuda", (7, 0), "fp16", True), ("cuda", (8, 0), "bf16", False),
     ("cuda", (8, 6), "bf16", False), ("cuda", (9, 0), "bf16", False), ("cuda", (12, 0), "bf16", False),
     ("cpu", None, "fp32", False)],
)  # fmt: skip
def test_automatic_choice(device, capability, name, scaler):
    chosen = choose_precision(device, capability)
    assert (chosen.name, chosen.needs_scaler) == (name, scaler)
    assert chosen.reason


def test_bf16_is_never_chosen_on_a_t4_though_torch_would_say_it_is_supported(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    assert choose_precision("cuda", (7, 5), "auto").name == "fp16"
    with pytest.raises(SlmError, match="emula bf16") as caught:
        choose_precision("cuda", (7, 5), "bf16")
    assert caught.value.code == "E_CONFIG" and "fp16" in caught.value.hint


@pytest.mark.parametrize("asked", ["auto", "fp32", "fp16", "bf16"])
def test_pascal_is_refused_naming_the_t4(asked):
    with pytest.raises(SlmError, match="sm_60") as caught:
        choose_precision("cuda", (6, 0), asked)
    assert caught.value.code == "E_GPU" and "T4" in caught.value.hint


@pytest.mark.parametrize("asked", ["fp16", "bf16"])
def test_half_precision_on_a_processor_without_units_is_refused(monkeypatch, asked):
    monkeypatch.setattr(precision, "bf16_units", lambda: None)
    with pytest.raises(SlmError) as caught:
        choose_precision("cpu", None, asked)
    assert caught.value.code == "E_CONFIG"


@pytest.mark.parametrize(("units", "auto"), [("AMX", "bf16"), ("AVX-512 BF16", "bf16"), (None, "fp32")])
def test_a_processor_with_units_for_bf16_trains_in_it(monkeypatch, units, auto):
    monkeypatch.setattr(precision, "bf16_units", lambda: units)
    assert choose_precision("cpu", None).name == auto
    assert choose_precision("cpu", None, "fp32").name == "fp32"
    if units:
        chosen = choose_precision("cpu", None, "bf16")
        assert chosen.name == "bf16" and units in chosen.reason and not chosen.needs_scaler
    with pytest.raises(SlmError, match="fp16"):
        choose_precision("cpu", None, "fp16")


@pytest.mark.parametrize("asked", ["fp32", "fp16", "bf16"])
def test_what_was_asked_is_what_is_given(asked):
    assert choose_precision("cuda", (8, 0), asked).name == asked


def test_choosing_imports_no_torch():
    code = (
        "import sys, ptbr_slm.train.planning.precision, ptbr_slm.train.config, ptbr_slm.train.config_file\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
