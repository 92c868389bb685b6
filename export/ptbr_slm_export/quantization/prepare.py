"""From a recipe to a quantiser: the calibration text is read, and sensitive matrices are looked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm_export.graphs.weights import LlamaWeights
from ptbr_slm_export.quantization.activations import Activations
from ptbr_slm_export.quantization.blocks import Floats, dequantize
from ptbr_slm_export.quantization.calibration import built_in_calibration, calibration_text
from ptbr_slm_export.quantization.outliers import outlier_matrices
from ptbr_slm_export.quantization.quantizer import Quantizer, block_for, quantize
from ptbr_slm_export.quantization.recipe import CALIBRATED, Recipe
from ptbr_slm_export.quantization.sensitivity import choose_mixed


def make_quantizer(
    recipe: Recipe,
    model: ModelFolder,
    weights: LlamaWeights,
    calibration: Path | None,
    on_step: Callable[[str], None] = lambda step: None,
) -> tuple[Quantizer, str | None]:
    """The quantiser of a recipe, and the name of the text it was calibrated on, if it needs one.

    Its own `recipe` has `mixed` filled in where the one given leaves that to measurement. Raises E_USAGE for
    a calibration text that nothing would read, and what `calibration_text` raises.
    """
    measures = recipe.mixed_extra > 0 and not recipe.mixed and recipe.bits == 4
    if recipe.method not in CALIBRATED and not measures:
        if calibration is not None:
            raise SlmError(
                "E_USAGE",
                f"o método {recipe.method} não usa texto de calibração.",
                where="--calibration",
                hint=f"Tire --calibration, ou use --method {' ou '.join(sorted(CALIBRATED))}.",
            )
        recipe = _with_exact(recipe, weights, model.tokenizer, on_step)
        return Quantizer(recipe), None
    config = weights.config
    text = calibration_text(model.path, model.tokenizer, config.max_seq_len, calibration)

    def rounded(name: str, matrix: Floats) -> Floats:
        block = block_for(matrix.shape[1], recipe.block)
        return dequantize(quantize(matrix, recipe.bits, block))

    if measures:
        mixed = choose_mixed(config, weights, text.windows, rounded, recipe.mixed_extra, on_step)
        recipe = replace(recipe, mixed=mixed)
    recipe = _with_exact(recipe, weights, model.tokenizer, on_step)
    if recipe.method not in CALIBRATED:
        return Quantizer(recipe), text.name
    return Quantizer(recipe, Activations(config, weights, text.windows), on_step), text.name


def _with_exact(
    recipe: Recipe,
    weights: LlamaWeights,
    tokenizer: Tokenizer,
    on_step: Callable[[str], None],
) -> Recipe:
    """The recipe with the matrices that int8 activations would spoil. A GPU's activations are fp16."""
    if recipe.symmetric or recipe.exact:
        return recipe
    on_step("procurando canais fora de escala")
    config = weights.config
    window = built_in_calibration(tokenizer, config.max_seq_len).windows[0]
    exact = outlier_matrices(
        config, weights, window, lambda name, columns: block_for(columns, recipe.choice(name)[1])
    )
    return replace(recipe, exact=exact)
