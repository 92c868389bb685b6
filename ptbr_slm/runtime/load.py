"""From a path to an engine: an export runs on ONNX Runtime, a model folder on PyTorch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ptbr_slm.errors import SlmError, missing_extra
from ptbr_slm.runtime.protocol import Engine
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.text import quoted

DEVICES = ("auto", "cpu", "cuda")
GRAPH = "model.onnx"


def open_engine(path: Path | str | ModelFolder, device: str = "auto") -> Engine:
    """Open an export folder (`OnnxEngine`) or a model folder (`TorchEngine`).

    path: or a model folder that is open already, of which nothing is read again.
    device: `cpu`, `cuda`, or `auto`, which takes what suits and names it in `engine.device`.
    Raises E_PROVIDER where the device is not there, E_NOT_FOUND, E_PICKLE, E_MODEL_INVALID, E_DEPENDENCY.
    """
    if device not in DEVICES:
        raise SlmError(
            "E_PROVIDER",
            f"não existe o dispositivo {device!r}.",
            where="--device",
            hint=f"Escolha um destes: {', '.join(DEVICES)}.",
        )
    opened = ModelFolder.of(path)
    folder = opened.path
    if (folder / GRAPH).exists():
        _require("onnxruntime")
        from ptbr_slm.runtime.engines.onnx.engine import OnnxEngine

        return OnnxEngine(folder, device)
    _refuse_non_model(opened)
    _require("torch")
    from ptbr_slm.runtime.engines.torch import TorchEngine

    return TorchEngine(opened, device)


def open_oracle(export: Path) -> Engine:
    """Open an export for any target on the CPU, however slowly, to check its answers; never to serve it."""
    _require("onnxruntime")
    from ptbr_slm.runtime.engines.onnx.engine import OnnxEngine

    return OnnxEngine(export, "cpu", oracle=True)


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise missing_extra(package)


def _refuse_non_model(opened: ModelFolder) -> None:
    """Answer for paths that hold no model before torch is imported for nothing."""
    folder = opened.path
    if folder.is_file() and folder.suffix not in (".pt", ".pth", ".bin", ".ckpt", ".pkl"):
        raise SlmError(
            "E_MODEL_INVALID",
            "isto é um arquivo; um modelo é uma pasta.",
            where=folder,
            hint=f"Aponte para a pasta:  -m {quoted(folder.parent)}",
        )
    final = folder / "final"
    if folder.is_dir() and not (folder / "config.json").exists() and (final / "config.json").exists():
        raise SlmError(
            "E_MODEL_INVALID",
            "esta é a pasta de um treino; o modelo está dentro dela.",
            where=folder,
            hint=f"Use:  -m {quoted(final)}",
        )
    if not (folder / "config.json").exists():
        opened.check()
