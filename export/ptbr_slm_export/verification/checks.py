"""The export's answers against PyTorch's: each promise is one check, with its value, its limit, and where."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptbr_slm_export.verification.locate import WorstPart
from ptbr_slm_export.verification.probe import Answers, Greedy, SelfAgreement
from ptbr_slm_export.verification.stored_weights import WrongWeight

LOGITS = 1e-4
"""fp32: largest difference of a logit, at every position, of logits that spread by 1 or more. Measured 4e-6
at 85m. Where the model's own fp32 arithmetic is noisier than that, `logit_limit` follows it."""
NOISE = 8
"""fp32: how many times PyTorch's own distance from fp64 an export may lie from it: each of the two rounds in
its own order, and the noise is measured on fewer tokens. Measured 2 to 3.5 on a trained model of 135M."""
NOISIEST = 1e-3
"""fp32: largest difference in standard deviations of the logits, whatever the noise."""
COSINE = {"fp16": 0.9999, "int8": 0.995, "int4": 0.995}
"""Smallest cosine of the centred logits of each text with PyTorch's over the stored, rounded weights, so
that only the rounding of activations differs. Measured 0.9995 or more with int8 activations; a matrix swapped
between two layers of a model trained for minutes gives 0.984 at most, a wrong sign in the rotation 0.986
(docs/decisions/0013-stored-weights.md)."""
SMALLEST_COSINE = 0.95
"""Whatever the roundings of a model's parts add up to."""
OWN_HEAD_COSINE = 0.98
"""Where a tied head is stored a second time in int4: PyTorch's reference has the embedding's int8 there."""
BITS_PER_BYTE = {"fp32": 0.0001, "fp16": 0.001, "int8": 0.005, "int4": 0.03}
"""Largest relative rise of the bits per byte on held-out text."""
LEAST_AGREEMENT = 1.0
"""Largest such difference, however far the roundings of activations carry the logits from PyTorch's: another
text's logits differ by several."""
SELF_AGREEMENT = 0.25
"""fp16, int8, int4: difference between two ways of reading, in standard deviations of the logits. Not zero,
since the kernels for one and for many rows round activations to int8 apart: measured 0.07 at most."""


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
    """Where it is worst."""

    def as_dict(self) -> dict[str, Any]:
        """For the manifest and `--json`; null for what is no number."""
        value = self.value if math.isfinite(self.value) else None
        body = {"name": self.name, "value": value, "limit": self.limit, "passed": self.passed}
        return body | ({"where": self.where} if self.where else {})


def logit_limit(reference: Answers) -> float:
    """fp32: how far a logit may lie from PyTorch's, by the logits' scale and the arithmetic's own noise."""
    spread = float(reference.logits[0].std())
    return max(LOGITS * min(1.0, spread), min(NOISE * reference.noise, NOISIEST * spread))


def cosine_limit(precision: str, worst_part: WorstPart | None, *, own_head: bool = False) -> float:
    """fp16, int8, int4: what independent roundings of the graph's parts, as measured, may take from 1.

    A deep model trained for long has channels far larger than the others, which cost their block's neighbours
    precision: SmolLM2-135M loses 0.017 in each of its 150 products, and 0.02 of the cosine in a short text,
    without a change in bits per byte. A product that errs beyond `ROUNDED` fails by itself.
    """
    limit = OWN_HEAD_COSINE if own_head else COSINE[precision]
    lost = worst_part.rounding**2 / 2 if worst_part is not None else 0.0
    return min(limit, max(1 - lost, SMALLEST_COSINE))


def agreement_limit(reference: Answers, exported: Answers) -> float:
    """fp16, int8, int4: how far two ways of reading may lie apart: as far as one lies from PyTorch's."""
    spread = float(reference.logits[0].std())
    distances = [float(np.abs(a - b).max()) for a, b in zip(reference.logits, exported.logits, strict=True)]
    farthest = max(distances) if np.isfinite(distances).all() else 0.0
    return max(SELF_AGREEMENT * spread, min(farthest, LEAST_AGREEMENT * spread))


def mask_check(precision: str, difference: float) -> Check:
    """Of a `genai` export: a ragged batch read through its mask, in standard deviations of the logits."""
    limit = 10 * LOGITS if precision == "fp32" else SELF_AGREEMENT
    return _below("mask", "lote desigual lido pela máscara = cada linha só", difference, limit, "")


def run_checks(
    precision: str,
    reference: Answers,
    exported: Answers,
    own: SelfAgreement,
    weight: WrongWeight,
    worst_part: WorstPart | None,
    *,
    own_head: bool = False,
) -> tuple[Check, ...]:
    """Every check for this precision. A value that is not a number fails.

    reference: PyTorch's logits and greedy texts over the weights that the export holds, which in fp32 are the
    model's, and bits per byte over the model's own. weight: the worst stored one. worst_part: the graph's,
    None where it could not be looked into. own_head: whether a tied head is stored apart.
    """
    exact = logit_limit(reference)
    if precision == "fp32":
        checks = [_logits(reference, exported, exact), _greedy(reference, exported, exact)]
    else:
        checks = [_cosine(reference, exported, cosine_limit(precision, worst_part, own_head=own_head))]
    label = "arredondamento dos pesos guardados"
    checks.append(_below("weights", label, weight.error, weight.limit, str(weight)))
    if worst_part is not None:
        label = f"cálculo do grafo, parte por parte ({worst_part.compared})"
        checks.append(_below("parts", label, worst_part.part.relative, worst_part.limit, str(worst_part)))
    limit = exact if precision == "fp32" else agreement_limit(reference, exported)
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


def _logits(reference: Answers, exported: Answers, limit: float) -> Check:
    """Largest difference over all texts and positions."""
    worst, where = -1.0, ""
    for index, (a, b) in enumerate(zip(reference.logits, exported.logits, strict=True)):
        difference = np.nan_to_num(np.abs(a - b), nan=np.inf)  # (T, V)
        if (value := float(difference.max())) > worst:
            position, token = np.unravel_index(difference.argmax(), difference.shape)
            worst, where = value, f"texto {index}, posição {position}, token {token}"
    return _below("logits", "maior diferença de um logit", worst, limit, where)


def _cosine(reference: Answers, exported: Answers, limit: float) -> Check:
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
    return Check(name="cosine", label=label, value=worst, limit=limit, passed=worst >= limit, where=where)


def _greedy(reference: Answers, exported: Answers, limit: float) -> Check:
    """Texts whose greedy continuation differs, ties of the reference (gap < 2 * limit) left out."""
    faults, notes = 0, []
    for index, (a, b) in enumerate(zip(reference.greedy, exported.greedy, strict=True)):
        step = _first_difference(a, b)
        if step is None:
            continue
        tie = a.gaps[step] < 2 * limit
        faults += not tie
        notes.append(f"texto {index + 1}, token {step + 1}" + (" (empate no PyTorch)" if tie else ""))
    label = "continuações gulosas diferentes"
    return _below("greedy", label, float(faults), 0.0, "; ".join(notes))


def _first_difference(a: Greedy, b: Greedy) -> int | None:
    return next((i for i, (x, y) in enumerate(zip(a.tokens, b.tokens, strict=True)) if x != y), None)
