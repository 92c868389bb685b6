"""`export_model`: a Llama folder in, an export folder out, whole or not at all.

    model.onnx  model.onnx.data  config.json  tokenizer.json  tokenizer_config.json  generation_config.json
    manifest.json   kind "export": target, precision, source_sha256, what was measured
"""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import onnx_ir as ir

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.atomic import atomic_folder
from ptbr_slm.storage.manifest import NAME as MANIFEST
from ptbr_slm.storage.manifest import sha256_file, write_manifest
from ptbr_slm.storage.model_folder import WeightReader, check_model_folder, read_config
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm_export.graph import build_graph
from ptbr_slm_export.projections import Float32Projections, Projections
from ptbr_slm_export.weights import LlamaWeights

Precision = Literal["fp32", "int8", "int4"]
MODEL, DATA = "model.onnx", "model.onnx.data"
COPIED = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
"""Files of the model folder that travel with the graph; the last two may be absent in a foreign folder."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written."""

    folder: Path
    precision: Precision
    bytes: int
    """Size of the graph and its weights."""
    seconds: float
    source_sha256: str
    """Identity of the model folder that it was made from."""


def export_model(source: Path, out: Path, *, precision: Precision = "int8", verify: bool = True) -> ExportReport:
    """Write the export of the model folder `source` to `out`."""
    started = time.monotonic()
    check_model_folder(source)
    config = read_config(source)
    identity = source_sha256(source)
    with atomic_folder(out) as folder:
        write_graph(source, config, folder, precision)
        copy_companions(source, folder)
        write_manifest(folder, "export", target="cpu", precision=precision, source_sha256=identity)
    size = sum((out / name).stat().st_size for name in (MODEL, DATA))
    return ExportReport(out, precision, size, time.monotonic() - started, identity)


def write_graph(source: Path, config: ModelConfig, folder: Path, precision: Precision) -> None:
    """Write model.onnx and model.onnx.data into `folder`."""
    weights = LlamaWeights(config, WeightReader(source))
    model = build_graph(config, weights, _projections(precision, weights))
    ir.save(model, folder / MODEL, external_data=DATA, size_threshold_bytes=1024)


def _projections(precision: Precision, weights: LlamaWeights) -> Projections:
    return Float32Projections(weights)


def copy_companions(source: Path, folder: Path) -> None:
    """Copy what a runtime needs beside the graph. Raises E_TOKENIZER_MISSING."""
    Tokenizer.load(source)
    for name in COPIED:
        if (source / name).is_file():
            with os_errors(folder / name):
                shutil.copyfile(source / name, folder / name)


def source_sha256(source: Path) -> str:
    """Identity of a model folder: sha256 over the names and hashes of its configuration, tokenizer and weights."""
    digest = hashlib.sha256()
    files = [source / "config.json", source / "tokenizer.json", *sorted(source.glob("model*.safetensors"))]
    for path in files:
        if path.is_file():
            digest.update(f"{path.name} {sha256_file(path)}\n".encode())
    return digest.hexdigest()
