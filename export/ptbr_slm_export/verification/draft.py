"""An exported draft layer against the one in PyTorch: what both expect after every token of a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.protocol import Floats
from ptbr_slm.storage.draft_folder import DraftFolder, draft_of
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.text import quoted
from ptbr_slm_export.verification.checks import Check

LEAST_COSINE = {"fp32": 0.9999, "int8": 0.98, "int4": 0.98}
"""Of the centred scores over all positions with those of PyTorch, which reads the model's weights as the
export holds them, so that the layer's own rounding and that of activations differ."""


def drafted_layer(facts: dict[str, Any], model: ModelFolder, given: Path | None) -> DraftFolder | None:
    """The layer that an export's manifest says it was made with; None where it has none.

    given: its folder, where it is not in the model's. Raises E_VERIFY for another one, E_DRAFT.
    """
    told = facts.get("draft")
    if told is None:
        return None
    found = draft_of(model) if given is None else DraftFolder(given)
    if found is None or found.sha256 != told.get("sha256"):
        what = "não está na pasta do modelo" if found is None else "não é esta, ou mudou desde então"
        raise SlmError(
            "E_VERIFY",
            f"a camada de rascunho deste export {what}.",
            where=model.path if found is None else found.path,
            hint=f"Diga onde ela está com --draft PASTA, ou exporte de novo:  "
            f"ptbr-slm export {quoted(model.path)} -o PASTA",
        )
    found.check_model(model)
    return found


def draft_check(precision: str, reference: Floats, exported: Floats) -> Check:
    """Cosine of the centred scores over all positions. A value that is not a number fails."""
    limit = LEAST_COSINE[precision]
    one, other = (scores - scores.mean(axis=-1, keepdims=True) for scores in (reference, exported))
    norms = np.linalg.norm(one) * np.linalg.norm(other)
    cosine = float((one * other).sum() / norms) if norms else 0.0
    return Check(
        name="draft",
        label="cosseno do que a camada de rascunho espera",
        value=cosine,
        limit=limit,
        passed=cosine >= limit,
    )
