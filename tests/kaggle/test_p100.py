"""A P100 (sm_60) is refused by `train` before its first step, with what to choose instead; exports for newer
cards are made and checked beside one, and not opened."""

from __future__ import annotations

import onnxruntime
import pytest
import torch
from fake_cards import P100, nvidia_smi
from tiny_models import write_model

from ptbr_slm.cli.command import execute
from ptbr_slm.cli.output import Mode, Output
from ptbr_slm.config import model_config
from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import Tokenizer
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


@pytest.fixture
def model_folder(tmp_path, texts):
    tokenizer = Tokenizer.train(texts, vocab_size=300)
    config = model_config("nano", vocab_size=tokenizer.vocab_size, max_seq_len=64)
    return write_model(tmp_path / "final", config, tokenizer)


@pytest.mark.slow
def test_an_export_for_newer_cards_is_made_and_checked_beside_a_p100_and_not_opened(
    model_folder, tmp_path, cli
):
    """Real commands, where the driver's tool lists a P100 and onnxruntime is the processor's."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("este onnxruntime tem CUDA; o teste precisa do de processador")
    environment, export = nvidia_smi(tmp_path, P100), tmp_path / "cuda"
    cli("export", model_folder, "-o", export, "--target", "cuda", env=environment, check=True)
    cli("verify", export, "--against", model_folder, env=environment, check=True)
    for device in ("auto", "cuda"):
        done = cli("generate", "-m", export, "--device", device, "O rio", env=environment)
        what, where, hint = done.stderr.strip().splitlines()[-3:]
        assert done.returncode == 1 and what.startswith("Erro [E_PROVIDER]"), done.stderr
        assert "onde:" in where and "onnxruntime-gpu" in hint and "--target cpu" in hint
    done = cli("generate", "-m", model_folder, "--device", "cuda", "O rio", env=environment)
    assert (
        done.returncode == 1
        and done.stderr.startswith("Erro [E_PROVIDER]")
        and "Traceback" not in done.stderr
    )
    done = cli(
        "generate", "-m", model_folder, "--device", "auto", "--max-new-tokens", "2", "O rio", env=environment
    )
    assert done.returncode == 0, done.stderr  # the processor still generates
