"""`export_model`: a Llama folder in, an export folder out, whole and verified or not at all.

model.onnx  model.onnx.data  config.json  tokenizer.json  tokenizer_config.json  generation_config.json
manifest.json   kind "export": target, precision, source_sha256, bits_per_byte, parity
"""

from __future__ import annotations

import errno
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.atomic import atomic_folder
from ptbr_slm.storage.manifest import NAME as MANIFEST
from ptbr_slm.storage.manifest import write_manifest
from ptbr_slm.storage.model_folder import WeightReader, check_model_folder, read_config
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm_export.graphs.gqa import build_graph
from ptbr_slm_export.graphs.projections import Float32Projections, Projections, QuantizedProjections
from ptbr_slm_export.graphs.weights import LlamaWeights
from ptbr_slm_export.identity import source_sha256
from ptbr_slm_export.quantization.blocks import BLOCKS
from ptbr_slm_export.verification.verify import VerifyReport, check_vocabulary, compare, require_engines

Precision = Literal["fp32", "int8", "int4"]
TARGET = "cpu"
MODEL, DATA = "model.onnx", "model.onnx.data"
_COPIED = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
"""What travels with the graph; the last two may be absent in a foreign folder."""
_EXTERNAL_FROM = 1024
"""Bytes from which an initializer goes to model.onnx.data; ORT reads shapes best from the graph itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportReport:
    """What was written."""

    folder: Path
    precision: Precision
    bytes: int
    """Size of the graph and its weights."""
    source_sha256: str
    """Identity of the model folder that it was made from."""
    seconds: float
    verification: VerifyReport | None
    """None where it was not asked for."""


def export_model(
    source: Path,
    out: Path,
    *,
    precision: Precision = "int8",
    held_out: Path | None = None,
    verify: bool = True,
    on_step: Callable[[str], None] = lambda step: None,
) -> ExportReport:
    """Write the export of the model folder `source` to `out`, replacing an earlier export there.

    held_out: prepared data for the bits per byte (see `held_out_text`). on_step: told each step, in pt-BR.
    Raises E_EXISTS where `out` is something else, E_MODEL_INVALID, E_TOKENIZER_MISSING, E_TOKENIZER_MISMATCH,
    E_VERIFY where the export does not answer as PyTorch does; nothing is left behind then.
    """
    started = time.monotonic()
    if verify:
        require_engines()
    _check_source(source)
    _check_output(out)
    config = read_config(source)
    _check_shape(config, precision, source)
    check_vocabulary(config, Tokenizer.load(source), source)
    identity = source_sha256(source)
    facts = {"target": TARGET, "precision": precision, "source_sha256": identity}
    report: VerifyReport | None = None
    with atomic_folder(out) as folder:
        on_step("escrevendo o grafo")
        write_graph(source, config, folder, precision)
        _copy_companions(source, folder)
        write_manifest(folder, "export", **facts)
        if verify:
            report = compare(folder, source, precision, held_out, on_step)
            report.require(out)
            write_manifest(
                folder, "export", **facts, bits_per_byte=report.bits_per_byte, parity=report.as_dict()
            )
    return ExportReport(
        folder=out,
        precision=precision,
        bytes=sum((out / name).stat().st_size for name in (MODEL, DATA)),
        source_sha256=identity,
        seconds=time.monotonic() - started,
        verification=report,
    )


def write_graph(source: Path, config: ModelConfig, folder: Path, precision: Precision) -> None:
    """Write model.onnx and model.onnx.data into `folder`.

    fp32 matrices are read one at a time as they are written; int8 and int4 ones wait for it quantised.
    """
    weights = LlamaWeights(config, WeightReader(source))
    model = build_graph(config, weights, _projections(precision, weights))
    try:
        ir.save(model, folder / MODEL, external_data=DATA, size_threshold_bytes=_EXTERNAL_FROM)
    except OSError as error:
        if error.errno is None:  # NumPy's tofile tells a short write, a full disk, without its number
            raise OSError(errno.ENOSPC, str(error)) from error
        raise


def _projections(precision: Precision, weights: LlamaWeights) -> Projections:
    return (
        Float32Projections(weights)
        if precision == "fp32"
        else QuantizedProjections(weights, int(precision[3:]))
    )


def _copy_companions(source: Path, folder: Path) -> None:
    for name in _COPIED:
        if (source / name).is_file():
            with os_errors(folder / name):
                shutil.copyfile(source / name, folder / name)


def _check_source(source: Path) -> None:
    final = source / "final"
    if not (source / "config.json").exists() and (final / "config.json").exists():
        raise SlmError(
            "E_MODEL_INVALID",
            "esta é a pasta de um treino; o modelo está dentro dela.",
            where=source,
            hint=f"Use:  ptbr-slm export {final} -o PASTA",
        )
    check_model_folder(source)


def _check_output(out: Path) -> None:
    """Only nothing, an empty folder or an export of ours may be replaced."""
    with os_errors(out):
        if not out.exists() or (out.is_dir() and not any(out.iterdir())) or _is_export(out):
            return
    raise SlmError(
        "E_EXISTS",
        "o destino já existe e não é um export do ptbr-slm: não vamos apagá-lo.",
        where=out,
        hint=f"Escolha outra pasta, por exemplo:  -o {out.with_name(out.name + '-export')}",
    )


def _is_export(folder: Path) -> bool:
    """Whether its manifest says so; a damaged export may be replaced too."""
    try:
        body = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(body, dict) and body.get("kind") == "export"


def _check_shape(config: ModelConfig, precision: Precision, source: Path) -> None:
    """What the kernels cannot take is refused before any work."""
    fault = ""
    if config.head_dim % 16:
        fault = f"head_dim é {config.head_dim}; a atenção do ONNX Runtime pede um múltiplo de 16"
    widths = (config.hidden_size, config.q_size, config.intermediate_size)
    if precision != "fp32" and any(width % BLOCKS[-1] for width in widths):
        fault = f"as larguras {widths} não são todas múltiplas de {BLOCKS[-1]}, o bloco de {precision}"
    if fault:
        raise SlmError(
            "E_MODEL_INVALID",
            f"este modelo não pode ser exportado assim: {fault}.",
            where=source,
            hint="Use --precision fp32."
            if config.head_dim % 16 == 0
            else "Use o modelo pelo PyTorch:  ptbr-slm generate -m MODELO",
        )
