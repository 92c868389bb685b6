"""On which device a model folder opens, on cards that PyTorch can and cannot use (pretended)."""

from __future__ import annotations

import pytest
from fake_cards import FUTURE, P100, Card, nvidia_smi, torch_sees

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.engines.torch import _choose_device

TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update."


@pytest.mark.parametrize("card", [P100, FUTURE], ids=["older", "newer"])
def test_auto_leaves_a_card_without_kernels_alone_and_cuda_is_refused(monkeypatch, card):
    torch_sees(monkeypatch, card, archs=("sm_75", "sm_80"))
    assert _choose_device("auto") == "cpu" == _choose_device("cpu")
    with pytest.raises(SlmError) as caught:
        _choose_device("cuda")
    assert caught.value.code == "E_PROVIDER" and card.name in caught.value.message
    assert "--device cpu" in caught.value.hint


def test_a_card_that_pytorch_can_use_is_taken(monkeypatch):
    torch_sees(monkeypatch, Card())
    assert _choose_device("auto") == "cuda" == _choose_device("cuda")


def test_a_driver_too_old_is_named_where_the_card_was_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", nvidia_smi(tmp_path, Card(driver="470.57"), unknown=("compute_cap",))["PATH"])
    torch_sees(monkeypatch, why=TOO_OLD)
    assert _choose_device("auto") == "cpu"
    with pytest.raises(SlmError) as caught:
        _choose_device("cuda")
    assert "470.57" in caught.value.message and "antigo demais" in caught.value.message
