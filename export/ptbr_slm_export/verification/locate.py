"""Where in the graph an export departs from a Llama over its own stored weights: the layer, and which part.

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

from ptbr_slm.config import ModelConfig
from ptbr_slm_export.graphs.weights import Floats
from ptbr_slm_export.verification.reference import Part, distances, parts, values
from ptbr_slm_export.verification.stored import StoredWeights
from ptbr_slm_export.verification.trace import GraphTrace

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
}
"""Part -> what it is, for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
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
) -> Place | None:
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
    places = [
        Place(
            part=part,
            limit=limit,
            with_past=at >= len(found),
            compared=len(found),
            rounding=rounding if quantised else 0.0,
        )
        for at, (part, limit) in enumerate(zip([*found, *later], limits, strict=True))
    ]
    wrong = next((place for place in places if not place.passed), None)
    return wrong or max(places, key=lambda place: place.part.relative / place.limit, default=None)


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
