"""The export's answers against PyTorch's: each promise is one check, with its value, its limit, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ptbr_slm_export.verification.probe import Answers, Greedy, SelfAgreement

LOGITS = 1e-4
"""fp32: largest difference of a logit, at every position. Measured 4e-6 at 85m."""
COSINE = 0.995
"""int8, int4: cosine of the centred logits of each text with PyTorch's over the stored, rounded weights, so
that only the int8 activations differ. Measured 0.9995 or more; a matrix swapped between two layers of a model
trained for minutes gives 0.984 at most, a wrong sign in the rotation 0.986 (docs/decisions.md)."""
ROUNDING = {"fp32": 0.0, "int8": 0.03, "int4": 0.25}
"""Largest relative error of a row of weights. A block of one large weight and many small ones is the worst
case: sqrt(128 / 12) / 128 = 0.026 for int8, sqrt(2 * 64 / 12) / 15 = 0.22 for int4."""
BITS_PER_BYTE = {"fp32": 0.0001, "int8": 0.005, "int4": 0.03}
"""Largest relative rise of the bits per byte on held-out text."""
SELF_AGREEMENT = 0.25
"""int8, int4: difference between two ways of reading, in standard deviations of the logits. Not zero, since
the kernels for one and for many rows round activations to int8 apart: measured 0.07 at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One promise, measured."""

    name: str
    """English key, for the manifest."""
    label: str
    """For people."""
    value: float
    limit: float
    passed: bool
    where: str = ""
    """The worst place."""

    def as_dict(self) -> dict[str, Any]:
        """For the manifest and `--json`."""
        body = {"name": self.name, "value": self.value, "limit": self.limit, "passed": self.passed}
        return body | ({"where": self.where} if self.where else {})


def judge(
    precision: str, reference: Answers, exported: Answers, own: SelfAgreement, rounding: tuple[float, str]
) -> tuple[Check, ...]:
    """Every check for this precision. A value that is not a number fails.

    reference: PyTorch's logits and greedy texts over the weights that the export holds, which in fp32 are the
    model's, and bits per byte over the model's own. rounding: the worst stored weight, and its name.
    """
    if precision == "fp32":
        checks = [_logits(reference, exported), _greedy(reference, exported)]
    else:
        checks = [_cosine(reference, exported)]
    checks.append(
        _below("weights", "arredondamento dos pesos guardados", rounding[0], ROUNDING[precision], rounding[1])
    )
    limit = LOGITS if precision == "fp32" else SELF_AGREEMENT * float(reference.logits[0].std())
    for name, label, (value, where) in (
        ("chunked_prefill", "texto inteiro = em blocos = token a token", own.chunked),
        ("ragged_batch", "linhas de um lote = cada uma sozinha", own.ragged),
    ):
        checks.append(_below(name, label, value, limit, where))
    rise = exported.bits.value / reference.bits.value - 1
    label = "mudança dos bits por byte"
    checks.append(_below("bits_per_byte", label, rise, BITS_PER_BYTE[precision], ""))
    return tuple(checks)


def _below(name: str, label: str, value: float, limit: float, where: str) -> Check:
    return Check(name=name, label=label, value=value, limit=limit, passed=value <= limit, where=where)


def _logits(reference: Answers, exported: Answers) -> Check:
    """Largest difference over all texts and positions."""
    worst, where = -1.0, ""
    for index, (a, b) in enumerate(zip(reference.logits, exported.logits, strict=True)):
        difference = np.nan_to_num(np.abs(a - b), nan=np.inf)  # (T, V)
        if (value := float(difference.max())) > worst:
            position, token = np.unravel_index(difference.argmax(), difference.shape)
            worst, where = value, f"texto {index}, posição {position}, token {token}"
    return _below("logits", "maior diferença de um logit", worst, LOGITS, where)


def _cosine(reference: Answers, exported: Answers) -> Check:
    """Smallest cosine over the texts, logits centred at each position."""
    worst, where = 2.0, ""
    for index, (a, b) in enumerate(zip(reference.logits, exported.logits, strict=True)):
        a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
        value = float(np.vdot(a, b) / np.sqrt(np.vdot(a, a) * np.vdot(b, b)))
        if not np.isfinite(value):
            value = -1.0
        if value < worst:
            worst, where = value, f"texto {index}"
    label = "semelhança dos logits (cosseno)"
    return Check(name="cosine", label=label, value=worst, limit=COSINE, passed=worst >= COSINE, where=where)


def _greedy(reference: Answers, exported: Answers) -> Check:
    """Texts whose greedy continuation differs, ties of the reference (gap < 2 * LOGITS) left out."""
    faults, notes = 0, []
    for index, (a, b) in enumerate(zip(reference.greedy, exported.greedy, strict=True)):
        step = _first_difference(a, b)
        if step is None:
            continue
        tie = a.gaps[step] < 2 * LOGITS
        faults += not tie
        notes.append(f"texto {index + 1}, token {step + 1}" + (" (empate no PyTorch)" if tie else ""))
    label = "continuações gulosas diferentes"
    return _below("greedy", label, float(faults), 0.0, "; ".join(notes))


def _first_difference(a: Greedy, b: Greedy) -> int | None:
    return next((i for i, (x, y) in enumerate(zip(a.tokens, b.tokens, strict=True)) if x != y), None)
