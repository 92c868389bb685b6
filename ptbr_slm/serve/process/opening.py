"""From a folder to a served model."""

from __future__ import annotations

from pathlib import Path

from ptbr_slm.runtime.batch import BatchLimits
from ptbr_slm.runtime.model import Model
from ptbr_slm.serve.served import ServedModel
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.storage.naming import fingerprint_of


def open_served(name: str, path: Path, device: str, limits: BatchLimits) -> ServedModel:
    """Open a model to be served. Raises as `Model`."""
    model = Model(path, device, limits=limits)
    return ServedModel(name, model, fingerprint_of(ModelFolder.of(path)))
