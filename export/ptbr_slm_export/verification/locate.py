"""Where in the graph an export departs from a Llama over its own stored weights: the layer, and which part.

The inner values of the graph are computed by ONNX Runtime: a copy in memory has every named value as an
output, and the weights stay where they are. It runs on the CPU whatever it was made for.

Two questions on one short text: is every part what it should be, given what the graph fed it; and does the
last token, read after the others, give the same values as all of them read at once (cache and positions).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ptbr_slm.config import ModelConfig
from ptbr_slm.text import utf8_folder
from ptbr_slm_export.llama import Floats
from ptbr_slm_export.verification.reference import Part, distances, parts, values
from ptbr_slm_export.verification.stored_weights import StoredWeights

Array = npt.NDArray[Any]

EXACT = {"float32": 1e-4, "float16": 1e-2}
"""Largest relative error of what is not rounded to int8, by the type of the activations. Measured 4e-7 in
fp32 (85m); a norm_eps ten times too large gives 4e-3 and more at the first norm."""
ROUNDED = 0.1
"""Of a product with int8 activations. Measured 0.013 (85m, tiny models) and 0.041 (SmolLM2-135M); a wrong
matrix gives 1 and more."""
FARTHEST = 0.5
"""Of a token read after others, whatever the roundings before it came to; an unread cache gives 1 or more."""
TEXT = 16
"""Tokens looked at."""

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_STEP_INPUTS = (
    {"input_ids", "seqlens_k", "total_sequence_length", "logits_index"},
    {"input_ids", "position_ids", "write_indices", "logits_index"},
)
"""Of the gqa and of the std graph."""
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"

LABELS = {
    "embedding": "embedding",
    "attention_norm": "norma antes da atenção",
    "qkv": "consultas, chaves e valores",
    "attention": "atenção",
    "attention_out": "saída da atenção",
    "attention_add": "soma da atenção",
    "feed_forward_norm": "norma antes do feed-forward",
    "gate": "gate do feed-forward",
    "up": "up do feed-forward",
    "silu": "ativação SiLU",
    "down": "down do feed-forward",
    "feed_forward_add": "soma do feed-forward",
    "norm": "norma final",
    "head": "cabeça (logits)",
    "head_best": "cabeça, melhores logits recalculados",
}
"""Part -> what it is, for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorstPart:
    """The worst part of a graph, or the first one that is wrong."""

    part: Part
    limit: float
    with_past: bool
    """Whether it shows only in a token read after others."""
    compared: int
    """Parts that were looked at."""
    rounding: float = 0.0
    """What the roundings of all products come to, were they independent: the root of the sum of squares."""

    @property
    def passed(self) -> bool:
        """Whether no part is wrong."""
        return self.part.relative <= self.limit

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        part = self.part
        return {
            "layer": part.layer,
            "part": part.name,
            "value": part.value,
            "position": part.position,
            "with_past": self.with_past,
            "relative_error": part.relative if np.isfinite(part.relative) else None,
            "largest_difference": part.largest if np.isfinite(part.largest) else None,
        }

    def __str__(self) -> str:
        part = self.part
        layer = "" if part.layer is None else f"camada {part.layer}, "
        reading = " ao ler um token depois dos outros" if self.with_past else ""
        size = "não é um número" if not np.isfinite(part.largest) else f"diferença de até {part.largest:.3g}"
        where = f"{layer}{part.name} ({LABELS[part.name]}), posição {part.position}{reading}"
        return f"{where}: {size}".replace(".", ",") if not self.passed else where


def locate(
    graph: Path, config: ModelConfig, stored: StoredWeights, tokens: npt.NDArray[np.int64]
) -> WorstPart | None:
    """The first part that is wrong, else the worst; None for a graph whose inputs are none we can feed."""
    if not GraphTrace.can_open(graph):
        return None
    trace = GraphTrace(graph, config)
    whole = trace.whole(tokens)
    found = parts(config, stored.of, tokens, whole)
    later = _against(whole, trace.with_past(tokens), found, len(tokens) - 1)
    quantised = stored.is_quantised
    limits = [ROUNDED if quantised and part.is_product else EXACT[trace.dtype] for part in found]
    if quantised:
        limits += _later_limits(whole, values(config, stored.of, tokens), found)
    else:
        limits += [EXACT[trace.dtype]] * len(later)
    rounding = float(np.sqrt(sum(part.relative**2 for part in found if part.is_product)))
    candidates = [
        WorstPart(
            part=part,
            limit=limit,
            with_past=at >= len(found),
            compared=len(found),
            rounding=rounding if quantised else 0.0,
        )
        for at, (part, limit) in enumerate(zip([*found, *later], limits, strict=True))
    ]
    wrong = next((candidate for candidate in candidates if not candidate.passed), None)
    return wrong or max(candidates, key=lambda found: found.part.relative / found.limit, default=None)


def _later_limits(whole: Mapping[str, Floats], exact: Mapping[str, Floats], found: list[Part]) -> list[float]:
    """How far each part of the last token may differ between two ways of reading.

    The kernels for one row and for many round activations apart, and over the layers that adds up: in each
    way to about what separates the graph from the same weights without roundings, at its worst position.
    """
    limits = []
    for part in found:
        relative, _ = distances(exact[part.value], whole[part.value])
        limits.append(min(max(ROUNDED, 2 * float(relative.max())), FARTHEST))
    return limits


def _against(
    whole: Mapping[str, Floats], last: Mapping[str, Floats], found: list[Part], position: int
) -> list[Part]:
    """The same parts of the last token, against the text read at once; here an error does travel."""
    again = []
    for part in found:
        relative, largest = distances(whole[part.value][-1:], last[part.value])
        worst = float(relative[0]), float(largest[0])
        again.append(Part(part.layer, part.name, part.value, part.is_product, *worst, position))
    return again


class GraphTrace:
    """A graph of the gqa or the std kind, with its inner values as outputs."""

    def __init__(self, graph: Path, config: ModelConfig) -> None:
        """Raises whatever onnxruntime raises for a graph it cannot run here."""
        import onnxruntime as ort

        self.config = config
        options = ort.SessionOptions()
        options.log_severity_level = 3
        with utf8_folder(graph.parent) as folder:
            options.add_session_config_entry(_WEIGHTS_FOLDER, str(folder))
            self._session: Any = ort.InferenceSession(
                _with_inner_outputs(graph), options, providers=["CPUExecutionProvider"]
            )
        self._names = [value.name for value in self._session.get_outputs()]
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self._caches = {
            name: _TYPES[value.type] for name, value in self._inputs.items() if name.startswith("past_")
        }

    @property
    def dtype(self) -> str:
        """`float32` or `float16`: what the graph computes in, as its caches tell."""
        return np.dtype(next(iter(self._caches.values()))).name

    @staticmethod
    def can_open(graph: Path) -> bool:
        """Whether the graph takes only inputs that are fed here."""
        inputs = {str(value.name) for value in ir.load(graph).graph.inputs}
        return {name for name in inputs if not name.startswith("past_")} in _STEP_INPUTS

    def whole(self, tokens: npt.NDArray[np.int64]) -> dict[str, Floats]:
        """Value's name -> (T, width), the text (T,) read in one go."""
        return _rows(self._run(tokens, 0, self._empty(len(tokens))))

    def with_past(self, tokens: npt.NDArray[np.int64]) -> dict[str, Floats]:
        """Value's name -> (1, width) of the last token, read after all the others."""
        caches = self._empty(len(tokens))
        before = self._run(tokens[:-1], 0, caches)
        caches = {name: before[name.replace("past_key_values", "present")] for name in caches}
        return _rows(self._run(tokens[-1:], len(tokens) - 1, caches))

    def _empty(self, tokens: int) -> dict[str, Array]:
        """Caches with capacity for `tokens`, or for what the graph's fixed shape says."""
        caches = {}
        for name, kind in self._caches.items():
            fixed = self._inputs[name].shape[2]
            capacity = fixed if isinstance(fixed, int) else tokens
            caches[name] = np.zeros((1, self.config.num_kv_heads, capacity, self.config.head_dim), dtype=kind)
        return caches

    def _run(self, tokens: npt.NDArray[np.int64], past: int, caches: Mapping[str, Array]) -> dict[str, Array]:
        total = past + len(tokens)
        inputs: dict[str, Array] = {
            "input_ids": tokens[None],
            "position_ids": np.arange(past, total, dtype=np.int64)[None],
            "write_indices": np.array([past], dtype=np.int64),
            "seqlens_k": np.array([total - 1], dtype=np.int32),
            "total_sequence_length": np.array(total, dtype=np.int32),
            "logits_index": np.arange(len(tokens), dtype=np.int64)[None],
            **caches,
        }
        feeds = {name: array for name, array in inputs.items() if name in self._inputs}
        return dict(zip(self._names, self._session.run(None, feeds), strict=True))


def _with_inner_outputs(graph: Path) -> bytes:
    """The model as it is, every value a node names an output too."""
    model = ir.load(graph)
    outputs = {value.name for value in model.graph.outputs}
    for node in model.graph:
        model.graph.outputs.extend(
            value for value in node.outputs if value.name and value.name not in outputs
        )
    proto: bytes = ir.to_proto(model).SerializeToString()
    return proto


def _rows(values: Mapping[str, Array]) -> dict[str, Floats]:
    """Only what is (1, T, width), as (T, width) in fp32."""
    return {
        name: value[0].astype(np.float32, copy=False)
        for name, value in values.items()
        if value.ndim == 3 and value.dtype in (np.float16, np.float32)
    }
