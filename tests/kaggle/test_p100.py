"""A P100 (sm_60) is refused by `train` before its first step, with what to choose instead."""

from __future__ import annotations

import pytest
import torch

from ptbr_slm.cli.command import execute
from ptbr_slm.cli.output import Mode, Output
from ptbr_slm.errors import SlmError
from ptbr_slm.train.config import TrainConfig
from ptbr_slm.train.run import train


@pytest.fixture
def p100(monkeypatch):
    """PyTorch sees a card, as it does on Kaggle: only its kernels are missing."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (6, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Tesla P100-PCIE-16GB")


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_p100_is_refused_before_the_first_step_naming_the_t4(device, p100, tmp_path, capsys):
    (tmp_path / "textos.txt").write_text("O rio corre.\n" * 50, encoding="utf-8")
    config = TrainConfig(
        data=tmp_path / "textos.txt", output=tmp_path / "run", device=device, model_size="nano", seq_len=16
    )
    with pytest.raises(SlmError) as caught:
        train(config)
    assert caught.value.code == "E_GPU" and "sm_60" in caught.value.message
    assert "GPU T4 x2" in caught.value.hint and "device=cpu" in caught.value.hint
    assert not (tmp_path / "run").exists()  # nothing was prepared, nothing written

    def verb(out: Output):
        train(config)

    assert execute(verb, Output(Mode.HUMAN)) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Erro [E_GPU]") and "T4 x2" in shown and "Traceback" not in shown
