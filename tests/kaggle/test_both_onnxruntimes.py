"""onnxruntime and onnxruntime-gpu at once: whoever meets them says so, and what to type."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest
from fake_cards import Card, nvidia_smi

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.engines.onnx.providers import gpu_libraries
from ptbr_slm.runtime.engines.onnx.providers.gpu_libraries import explain_cuda_error, install_line
from ptbr_slm.runtime.engines.onnx.providers.registry import choose_provider

SETUP = Path(__file__).resolve().parents[2] / "scripts" / "kaggle_setup.sh"


@pytest.fixture
def both(monkeypatch):
    """pip's records name both; the processor's has overwritten the other's files."""
    monkeypatch.setattr(gpu_libraries, "installed_version", lambda name: "1.31.1")
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])


@pytest.mark.parametrize("target", ["cuda", "tensorrt"])
def test_opening_an_export_for_the_card_says_why_there_is_no_provider(both, target):
    with pytest.raises(SlmError) as caught:
        choose_provider("cuda", target)
    assert caught.value.code == "E_PROVIDER" and "instalados juntos" in caught.value.hint
    assert "pip uninstall -y onnxruntime onnxruntime-gpu && pip install" in caught.value.hint


def test_with_one_of_them_nobody_speaks_of_both(monkeypatch):
    monkeypatch.setattr(gpu_libraries, "installed_version", lambda name: "1" if "gpu" in name else None)
    assert install_line().startswith("Instale:")


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version", "driver da NVIDIA"),
        ("CUDA failure 209: no kernel image is available for execution on the device", "sm_75"),
        ("CUDA failure 100: no CUDA-capable device is detected ; GPU=-1", "CUDA_VISIBLE_DEVICES"),
        ("CUDA failure 101: invalid device ordinal ; GPU=7", "CUDA_VISIBLE_DEVICES"),
        ("something else", ""),
    ],
)
def test_a_cuda_failure_is_told_in_portuguese(words, meaning):
    told = explain_cuda_error(words, "13.0")
    assert meaning in told and bool(told) == bool(meaning)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python in which both packages are installed, and whose pip does nothing."""
    for name in ("onnxruntime", "onnxruntime_gpu"):
        folder = tmp_path / "packages" / f"{name}-1.31.1.dist-info"
        folder.mkdir(parents=True)
        text = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.31.1\n"
        (folder / "METADATA").write_text(text)
    fake = tmp_path / "python"
    fake.write_text(
        "#!/usr/bin/env bash\n"
        '[[ "$1 $2" == "-m pip" ]] && { echo "$*" >>"' + str(tmp_path) + '/pip.log"; exit 0; }\n'
        f'PYTHONPATH="{tmp_path}/packages" exec "{sys.executable}" "$@"\n'
    )
    fake.chmod(0o755)
    return fake


@pytest.mark.parametrize("card", [True, False], ids=["with a card", "without"])
def test_the_setup_script_names_the_line_that_mends_it_and_goes_on(python, tmp_path, card):
    environment = {**os.environ, "PYTHON": str(python), **(nvidia_smi(tmp_path, Card()) if card else {})}
    done = subprocess.run(["bash", str(SETUP)], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "instalados juntos" in done.stderr
    assert "pip uninstall -y onnxruntime onnxruntime-gpu && pip install" in done.stderr
    assert ("onnxruntime-gpu[cuda,cudnn]==" in done.stderr) == card
    assert "[train,export,app]" in (tmp_path / "pip.log").read_text()  # no third one beside them
    assert "instalados juntos" in done.stdout  # doctor, at the end
