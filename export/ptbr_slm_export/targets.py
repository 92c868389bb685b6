"""Where an export can run: one line a target, with the precisions it has and what writes its graph.

To add one, write `build` and add a line to `TARGETS`. `build` is called with the model, its weights, the
precision and the quantiser (None for fp32 and fp16), and mostly passes
`projections_for(weights, precision, quantizer, dtype)` on to a graph of `graphs/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm_export.genai.config import check_tokenizer, write_companions
from ptbr_slm_export.genai.graph import build_genai_graph
from ptbr_slm_export.graphs.gqa import build_cuda_graph, build_gqa_graph
from ptbr_slm_export.graphs.projections import StandardProjections, projections_for
from ptbr_slm_export.graphs.std import build_std_graph
from ptbr_slm_export.llama import LlamaWeights
from ptbr_slm_export.quantization.quantizer import Quantizer
from ptbr_slm_export.quantization.recipe import HEADS, RECIPES, Head, Precision, Recipe, recipe_for

Flavour = Literal["gqa", "std", "genai"]
Build = Callable[[ModelConfig, LlamaWeights, Precision, Quantizer | None], ir.Model]


def _no_companions(folder: Path, model: ModelFolder) -> None:
    """No file beside the graph and the tokenizer."""


def _any_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Our runtime reads whatever tokenizer.json there is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where an export runs, and what is written for it."""

    name: str
    flavour: Flavour
    """Which graph: `graphs/gqa.py`, `graphs/std.py` or `genai/graph.py`."""
    precisions: tuple[Precision, ...]
    """What it can run, in the order they are offered."""
    default: Precision
    """Where none is asked for."""
    kv_dtype: Literal["float32", "float16"]
    """Element of the KV cache; of an fp32 export always float32."""
    build: Build
    """Writes the graph."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `recipe_for` in which this target differs from the CPU's."""
    heads: tuple[Head, ...] = HEADS
    """How it can store the head."""
    companions: Callable[[Path, ModelFolder], None] = _no_companions
    """Writes further files into the export's folder, such as genai_config.json; the manifest lists them."""
    check_tokenizer: Callable[[Tokenizer, Path], None] = _any_tokenizer
    """Refuses, before any work, a tokenizer of which this target would make other tokens."""
    drafts: bool = False
    """Whether a draft layer rides in it (`graphs/draft.py`)."""
    verified: bool = True
    """Whether `verification` can ask the export on this computer's CPU before it is accepted."""

    def recipe_for(self, precision: Precision, method: str | None = None, **changes: Any) -> Recipe | None:
        """As `recipe.recipe_for`, with what this target needs; None where nothing is quantised.

        Raises E_USAGE for a head that it cannot run.
        """
        head = changes.get("head")
        if head in HEADS and head not in self.heads:
            raise SlmError(
                "E_USAGE",
                f"o alvo {self.name} não tem a saída {head}; tem {', '.join(self.heads)}.",
                where=f"--target {self.name} --head {head}",
                hint=f"Tire --head, ou use --head {self.heads[0]}.",
            )
        own = self.recipe if precision in RECIPES else {}
        return recipe_for(precision, method, **{**own, **{k: v for k, v in changes.items() if v is not None}})

    def precision(self, wanted: str | None) -> Precision:
        """The precision asked for, or the default. Raises E_USAGE naming what there is."""
        for precision in self.precisions:
            if precision == (wanted or self.default):
                return precision
        raise SlmError(
            "E_USAGE",
            f"o alvo {self.name} não tem a precisão {wanted}; tem {', '.join(self.precisions)}.",
            where=f"--target {self.name} --precision {wanted}",
            hint=f"Use:  ptbr-slm export MODELO -o PASTA --target {self.name} --precision {self.default}",
        )


def target_of(name: str) -> Target:
    """The target called `name`. Raises E_USAGE naming those there are."""
    if name in TARGETS:
        return TARGETS[name]
    raise SlmError(
        "E_USAGE",
        f"não há export para o alvo {name!r} nesta versão; há {', '.join(TARGETS)}.",
        where=f"--target {name}",
        hint="Use:  ptbr-slm export MODELO -o PASTA --target cpu",
    )


def _cpu(
    config: ModelConfig, weights: LlamaWeights, precision: Precision, quantizer: Quantizer | None
) -> ir.Model:
    return build_gqa_graph(config, weights, projections_for(weights, precision, quantizer, ir.DataType.FLOAT))


def _cuda(
    config: ModelConfig, weights: LlamaWeights, precision: Precision, quantizer: Quantizer | None
) -> ir.Model:
    projections = projections_for(weights, precision, quantizer, ir.DataType.FLOAT16)
    return build_cuda_graph(config, weights, projections)


def _tensorrt(
    config: ModelConfig, weights: LlamaWeights, precision: Precision, quantizer: Quantizer | None
) -> ir.Model:
    dtype = ir.DataType.FLOAT if precision == "fp32" else ir.DataType.FLOAT16
    return build_std_graph(config, weights, StandardProjections(weights, dtype), dtype=dtype)


def _genai(
    config: ModelConfig, weights: LlamaWeights, precision: Precision, quantizer: Quantizer | None
) -> ir.Model:
    floats = ir.DataType.FLOAT
    return build_genai_graph(config, weights, projections_for(weights, precision, quantizer, floats))


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            name="cpu",
            flavour="gqa",
            precisions=("fp32", "int8", "int4"),
            default="int8",
            kv_dtype="float32",
            build=_cpu,
            drafts=True,
        ),
        Target(
            name="cuda",
            flavour="gqa",
            precisions=("fp16", "int8", "int4"),  # GroupQueryAttention has no fp32 kernel there
            default="fp16",
            kv_dtype="float16",
            build=_cuda,
            # What fpA_intB takes, ORT's fused kernel from sm_75 on: symmetric, blocks of 32. Whether TopK and
            # ScatterElements fit into a captured CUDA graph was not tried.
            recipe={"block": 32, "head": "int8", "head_block": 32, "mixed_block": 32, "symmetric": True},
            heads=("int8", "int4"),
        ),
        Target(
            name="tensorrt",
            flavour="std",
            precisions=("fp16", "fp32"),
            default="fp16",
            kv_dtype="float16",
            build=_tensorrt,
        ),
        Target(
            name="genai",
            flavour="genai",
            precisions=("fp32", "int8", "int4"),
            default="int8",
            kv_dtype="float32",
            build=_genai,
            companions=write_companions,
            check_tokenizer=check_tokenizer,
        ),
    )
}
