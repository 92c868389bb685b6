"""`export_model`: a Llama folder in, an export folder out, whole and verified or not at all.

model.onnx  model.onnx.data  config.json  tokenizer.json  tokenizer_config.json  generation_config.json
manifest.json   kind "export": target, flavour, precision, kv_dtype, source_sha256, bits_per_byte and the
                held_out text that they were measured on, parity;
                of int8 and int4 also method and recipe, and what was measured to choose it
                (`fastest_here`); of a model of ours, what its manifest tells of how it was trained
                (`TRAINED`); draft, where a draft layer rides
draft.onnx  draft.onnx.data     the model's draft layer, where it has one and the target takes it
README.md       the model's card, where it has one
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
from ptbr_slm.storage.draft_folder import DraftFolder, draft_of
from ptbr_slm.storage.manifest import amend_manifest, write_manifest
from ptbr_slm.storage.model_folder import ModelFolder, check_vocabulary, write_files
from ptbr_slm.text import quoted
from ptbr_slm_export.fastest import Fastest, fastest
from ptbr_slm_export.graphs.draft import add_states, build_draft_graph, write_draft_graph
from ptbr_slm_export.llama import LlamaWeights
from ptbr_slm_export.quantization.quantizer import make_quantizer
from ptbr_slm_export.quantization.recipe import Precision, Recipe
from ptbr_slm_export.targets import Target, target_of
from ptbr_slm_export.verification.verify import VerifyReport, compare, require_engines

MODEL, DATA = "model.onnx", "model.onnx.data"
DRAFT, DRAFT_DATA = "draft.onnx", "draft.onnx.data"
_GRAPHS = (MODEL, DATA, DRAFT, DRAFT_DATA)
CARD = "README.md"
TRAINED = ("steps", "tokens", "init_from", "data", "distilled_from", "tuning")
"""Keys of a model's manifest that its exports repeat, as `trained`: an export is often all that travels."""
DRAFTED = ("acceptance", "held_out", "coverage", "steps", "tokens")
"""Keys of a draft layer's manifest that an export with it repeats, under `draft`."""
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
    here: Fastest | None
    """What was measured to choose blocks and head; None where it was not asked for."""
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
    draft: Path | bool = True,
    fastest_here: bool = False,
    verify: bool = True,
    on_step: Callable[[str], None] = lambda step: None,
) -> ExportReport:
    """Write the export of the model folder `source` to `out`, replacing an earlier export there.

    source: a path, or a folder that is open already. precision: None: the target's default. method: how int8
    and int4 find their codes. recipe: all of that choice in place of `method`. calibration: text or prepared
    data that kquant and gptq watch the model read (see `calibration_text`). held_out: prepared data for the
    bits per byte (see `held_out_text`). draft: whether the draft layer in the model's folder rides, where
    there is one and the target takes it; or the folder of another. fastest_here: int4 for the CPU in the
    blocks and with the head that this machine is measured to multiply fastest. on_step: told each step, in
    pt-BR. Raises E_USAGE for a target or precision there is not, E_EXISTS where `out` is something else,
    E_MODEL_INVALID, E_TOKENIZER_MISSING, E_TOKENIZER_MISMATCH, E_DRAFT, E_VERIFY where the export does not
    answer as PyTorch does; nothing is left behind then.
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
    layer = _draft_layer(draft, model, destination, on_step)
    here = _fastest_here(destination, recipe, config) if fastest_here else None
    if here is not None:
        on_step(str(here))
        recipe = here.recipe
    weights = LlamaWeights(config, model.weights.read)
    quantizer, calibrated_on = None, None
    if recipe is not None:
        quantizer, calibrated_on = make_quantizer(recipe, model, weights, calibration, on_step)
        recipe = quantizer.recipe
    facts = _facts(destination, chosen, recipe, model, calibrated_on)
    if layer is not None:
        known = {key: layer.facts[key] for key in DRAFTED if key in layer.facts}
        facts["draft"] = {"sha256": layer.sha256, "head_tokens": layer.config.head_tokens, **known}
    if here is not None:
        facts["fastest_here"] = here.as_dict()
    report: VerifyReport | None = None
    with atomic_folder(out) as folder:
        on_step("escrevendo o grafo")
        graph = destination.build(config, weights, chosen, quantizer)
        if layer is not None:
            add_states(graph, config.hidden_size)
        write_graph(graph, folder)
        if layer is not None:
            built = build_draft_graph(folder / MODEL, weights, layer, chosen)
            write_draft_graph(built, folder, DRAFT, DRAFT_DATA)
        _copy_companions(model, folder)
        destination.companions(folder, model)
        write_manifest(folder, "export", **facts)
        if verify:
            report = compare(folder, model, chosen, held_out, on_step, layer)
            report.require(model.path)  # `out` will not be there
            parity = report.as_dict() | {"held_out": Path(report.text.name).name}  # others may read it
            amend_manifest(folder, **report.measured(model), parity=parity)
    return ExportReport(
        folder=out,
        target=target,
        precision=chosen,
        recipe=recipe,
        here=here,
        bytes=sum(file.stat().st_size for name in _GRAPHS if (file := out / name).exists()),
        source_sha256=facts["source_sha256"],
        seconds=time.monotonic() - started,
        verification=report,
    )


def _draft_layer(
    asked: Path | bool, model: ModelFolder, target: Target, on_step: Callable[[str], None]
) -> DraftFolder | None:
    """The draft layer that rides in the export. Raises E_DRAFT, E_USAGE, E_NOT_FOUND."""
    if asked is False:
        return None
    if asked is not True:
        if not target.drafts:
            raise SlmError(
                "E_USAGE",
                f"o alvo {target.name} não usa camada de rascunho.",
                where=f"--target {target.name} --draft {quoted(asked)}",
                hint="Tire --draft, ou use --target cpu.",
            )
        found = DraftFolder(asked)
        found.check_model(model)
        return found
    layer = draft_of(model)
    if layer is not None and not target.drafts:
        on_step(f"deixando de fora a camada de rascunho, que o alvo {target.name} não usa")
        return None
    return layer


def _fastest_here(target: Target, recipe: Recipe | None, config: ModelConfig) -> Fastest:
    """Measured with the threads that the runtime would take."""
    if target.name != "cpu" or recipe is None or recipe.bits != 4:
        raise SlmError(
            "E_USAGE",
            "só um export int4 para a CPU escolhe blocos e saída medindo.",
            where="--fastest-here",
            hint="Use:  ptbr-slm export MODELO -o PASTA --precision int4 --fastest-here",
        )
    from ptbr_slm.runtime.engines.onnx.providers.cpu import thread_count

    return fastest(config, recipe, thread_count())


def _facts(
    target: Target, precision: Precision, recipe: Recipe | None, model: ModelFolder, calibrated_on: str | None
) -> dict[str, Any]:
    """What the manifest says before anything is measured."""
    facts: dict[str, Any] = {
        "target": target.name,
        "flavour": target.flavour,
        "precision": precision,
        "kv_dtype": "float32" if precision == "fp32" else target.kv_dtype,
        "source_sha256": model.sha256,
    }
    known = {} if model.manifest is None else model.manifest.extra
    trained = {key: known[key] for key in TRAINED if key in known}
    if trained:
        facts["trained"] = trained
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
    own = {name: model.read(name) for name in ("config.json", "tokenizer.json", CARD)}
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
