"""`export_model`: a Llama folder in, an export folder out, whole and verified or not at all.

model.onnx  model.onnx.data  config.json  tokenizer.json  tokenizer_config.json  generation_config.json
manifest.json   kind "export": target, flavour, precision, kv_dtype, source_sha256, bits_per_byte and the
                held_out text that they were measured on, parity;
                of int8 and int4 also method and recipe
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.atomic import atomic_folder, may_replace, write_json
from ptbr_slm.storage.manifest import amend_manifest, write_manifest
from ptbr_slm.storage.model_folder import ModelFolder, check_vocabulary, write_files
from ptbr_slm.text import quoted
from ptbr_slm_export.llama import LlamaWeights
from ptbr_slm_export.quantization.quantizer import make_quantizer
from ptbr_slm_export.quantization.recipe import Precision, Recipe
from ptbr_slm_export.targets import Target, target_of
from ptbr_slm_export.verification.verify import VerifyReport, compare, require_engines

MODEL, DATA = "model.onnx", "model.onnx.data"
_SMALLEST_BLOCK = 32
"""What a width that is quantised must be a multiple of: smaller blocks are mostly scales."""
_EXTERNAL_FROM = 1024
"""Bytes from which an initializer goes to model.onnx.data; ORT reads shapes best from the graph itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportReport:
    """What was written."""

    folder: Path
    target: str
    precision: Precision
    recipe: Recipe | None
    """How it was quantised; None for fp32 and fp16."""
    bytes: int
    """Size of the graph and its weights."""
    source_sha256: str
    """Identity of the model folder that it was made from."""
    seconds: float
    verification: VerifyReport | None
    """None where it was not asked for."""


def export_model(
    source: Path | ModelFolder,
    out: Path,
    *,
    target: str = "cpu",
    precision: str | None = None,
    method: str | None = None,
    recipe: Recipe | None = None,
    calibration: Path | None = None,
    held_out: Path | None = None,
    verify: bool = True,
    on_step: Callable[[str], None] = lambda step: None,
) -> ExportReport:
    """Write the export of the model folder `source` to `out`, replacing an earlier export there.

    source: a path, or a folder that is open already. precision: None: the target's default. method: how int8
    and int4 find their codes. recipe: all of that choice in place of `method`. calibration: text or prepared
    data that kquant and gptq watch the model read (see `calibration_text`). held_out: prepared data for the
    bits per byte (see `held_out_text`). on_step: told each step, in pt-BR. Raises E_USAGE for a target or
    precision there is not, E_EXISTS where `out` is something else, E_MODEL_INVALID, E_TOKENIZER_MISSING,
    E_TOKENIZER_MISMATCH, E_VERIFY where the export does not answer as PyTorch does; nothing is left behind
    then.
    """
    started = time.monotonic()
    destination = target_of(target)
    chosen = destination.precision(precision)
    recipe = recipe or destination.recipe_for(chosen, method)
    verify = verify and destination.verified
    if verify:
        require_engines()
    model = ModelFolder.of(source)
    _check_source(model)
    _check_output(out)
    config, tokenizer = model.config, model.tokenizer
    _check_shape(config, chosen, model.path)
    check_vocabulary(config, tokenizer, model.path)
    destination.check_tokenizer(tokenizer, model.path)
    weights = LlamaWeights(config, model.weights.read)
    quantizer, calibrated_on = None, None
    if recipe is not None:
        quantizer, calibrated_on = make_quantizer(recipe, model, weights, calibration, on_step)
        recipe = quantizer.recipe
    facts = _facts(destination, chosen, recipe, model.sha256, calibrated_on)
    report: VerifyReport | None = None
    with atomic_folder(out) as folder:
        on_step("escrevendo o grafo")
        write_graph(destination.build(config, weights, chosen, quantizer), folder)
        _copy_companions(model, folder)
        destination.companions(folder, model)
        write_manifest(folder, "export", **facts)
        if verify:
            report = compare(folder, model, chosen, held_out, on_step)
            report.require(model.path)  # `out` will not be there
            amend_manifest(folder, **report.measured(model), parity=report.as_dict())
    return ExportReport(
        folder=out,
        target=target,
        precision=chosen,
        recipe=recipe,
        bytes=sum((out / name).stat().st_size for name in (MODEL, DATA)),
        source_sha256=facts["source_sha256"],
        seconds=time.monotonic() - started,
        verification=report,
    )


def _facts(
    target: Target, precision: Precision, recipe: Recipe | None, source: str, calibrated_on: str | None
) -> dict[str, Any]:
    """What the manifest says before anything is measured."""
    facts: dict[str, Any] = {
        "target": target.name,
        "flavour": target.flavour,
        "precision": precision,
        "kv_dtype": "float32" if precision == "fp32" else target.kv_dtype,
        "source_sha256": source,
    }
    if recipe is not None:
        facts |= {"method": recipe.method, "recipe": recipe.as_dict()}
    return facts if calibrated_on is None else {**facts, "calibration": calibrated_on}


def write_graph(model: ir.Model, folder: Path) -> None:
    """Write model.onnx and model.onnx.data into `folder`.

    Float matrices are read one at a time as they are written; int8 and int4 ones wait for it quantised.
    """
    try:
        ir.save(model, folder / MODEL, external_data=DATA, size_threshold_bytes=_EXTERNAL_FROM)
    except OSError as error:
        if error.errno is None:  # NumPy's tofile tells a short write, a full disk, without its number
            raise OSError(errno.ENOSPC, str(error)) from error
        raise


def _copy_companions(model: ModelFolder, folder: Path) -> None:
    """Copy what travels with the graph. config.json is written anew where the weights said more than it."""
    own = {name: model.read(name) for name in ("config.json", "tokenizer.json")}
    found = {name: content for name, content in own.items() if content is not None}
    write_files(folder, found | model.companions)
    if ModelFolder(folder).config != model.config:
        write_json(folder / "config.json", model.config.to_hf())


def _check_source(model: ModelFolder) -> None:
    source = model.path
    final = source / "final"
    if not (source / "config.json").exists() and (final / "config.json").exists():
        raise SlmError(
            "E_MODEL_INVALID",
            "esta é a pasta de um treino; o modelo está dentro dela.",
            where=source,
            hint=f"Use:  ptbr-slm export {quoted(final)} -o PASTA",
        )
    model.check()


def _check_output(out: Path) -> None:
    """Only nothing, an empty folder or an export of ours may be replaced."""
    if may_replace(out, "export"):
        return
    real = out.resolve()  # "." has no name
    raise SlmError(
        "E_EXISTS",
        "o destino já existe e não é um export do ptbr-slm: não vamos apagá-lo.",
        where=out,
        hint=f"Escolha outra pasta, por exemplo:  -o {quoted(real.with_name(real.name + '-export'))}",
    )


def _check_shape(config: ModelConfig, precision: Precision, source: Path) -> None:
    """What the kernels cannot take is refused before any work."""
    fault = ""
    if config.head_dim % 16:
        fault = f"head_dim é {config.head_dim}; a atenção do ONNX Runtime pede um múltiplo de 16"
    widths = (config.hidden_size, config.q_size, config.intermediate_size)
    if precision in ("int8", "int4") and any(width % _SMALLEST_BLOCK for width in widths):
        fault = f"as larguras {widths} não são todas múltiplas de {_SMALLEST_BLOCK}, o bloco de {precision}"
    if fault:
        raise SlmError(
            "E_MODEL_INVALID",
            f"este modelo não pode ser exportado assim: {fault}.",
            where=source,
            hint="Use --precision fp32."
            if config.head_dim % 16 == 0
            else "Use o modelo pelo PyTorch:  ptbr-slm generate -m MODELO",
        )
