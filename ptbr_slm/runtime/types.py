"""What the runtime takes, streams and returns, and the protocol both engines keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import Tokenizer

FinishReason = Literal["eos", "stop", "length", "context", "cancelled", "timeout"]
"""Why a text ended: the model said so (or a constraint was fulfilled), a stop string, max_new_tokens, a full
context, the caller's cancellation, or its time limit."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """How to choose tokens. Each field is checked; E_SAMPLING says what to change."""

    max_new_tokens: int = 128
    """Tokens to generate at most."""
    temperature: float = 0.8
    """Divides the logits; 0 is greedy."""
    top_k: int = 0
    """Keep the k most probable tokens; 0 keeps all."""
    top_p: float = 0.95
    """Keep the smallest set whose probability reaches p (Holtzman et al., 2020, arXiv:1904.09751)."""
    min_p: float = 0.0
    """Drop tokens below min_p times the largest probability (Nguyen et al., 2024, arXiv:2407.01082)."""
    repetition_penalty: float = 1.0
    """Divides positive, multiplies negative logits of tokens seen (Keskar et al., 2019, arXiv:1909.05858)."""
    seed: int | None = None
    """Of the random draws; None takes a fresh one, which the result names."""
    stop: tuple[str, ...] = ()
    """Texts that end the generation; they are not part of the result."""

    def __post_init__(self) -> None:
        _check_range("max_new_tokens", self.max_new_tokens, 1, 1_000_000, integer=True)
        _check_range("temperature", self.temperature, 0.0, 100.0)
        _check_range("top_k", self.top_k, 0, 10_000_000, integer=True)
        _check_range("top_p", self.top_p, 1e-6, 1.0)
        _check_range("min_p", self.min_p, 0.0, 1.0)
        _check_range("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        if self.seed is not None:
            _check_range("seed", self.seed, 0, 2**63 - 1, integer=True)
        stop: object = self.stop  # callers are not type-checked
        if not isinstance(stop, tuple) or not all(isinstance(s, str) and s for s in stop):
            raise SlmError(
                "E_SAMPLING",
                "stop deve ser uma lista de textos não vazios.",
                where="stop",
                hint='Exemplo: --stop "."',
            )


def _check_range(name: str, value: Any, low: float, high: float, *, integer: bool = False) -> None:
    kind = int if integer else (int, float)
    good = (
        isinstance(value, kind)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and low <= value <= high
    )
    if not good:
        raise SlmError(
            "E_SAMPLING",
            f"{name} deve ser um {'inteiro' if integer else 'número'} de {low:g} a {high:g}, não {value!r}.",
            where=name,
            hint=f"Corrija com --{name.replace('_', '-')} (ou {name}= no Python).",
        )


@dataclass(frozen=True, slots=True)
class GenerationChunk:
    """One token of one text, as `stream` yields it."""

    text: str
    """What this token completes; may be empty while a character or a stop string is unfinished."""
    token: int
    row: int = 0
    """Index of the prompt in the batch."""
    finish_reason: FinishReason | None = None
    """Set on a row's last chunk."""
    result: GenerationResult | None = None
    """The whole finished text and its figures, on a row's last chunk."""


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """One finished text."""

    text: str
    """The continuation, without the prompt."""
    tokens: tuple[int, ...]
    """Generated ids, the end token included where there was one."""
    prompt_tokens: int
    finish_reason: FinishReason
    seed: int
    time_to_first_token_s: float
    tokens_per_second: float
    """Decode speed of this row: tokens after the first, divided by the time they took; 0 for one token."""


class Engine(Protocol):
    """Runs the model's step on independent slots ("rows"). Both engines give the same logits within 1e-4.

    Every method returns arrays of the caller's own. `Model` adds the lock; only `close_slot` needs none.
    """

    name: str
    """`onnx` or `torch`."""
    device: str
    """Where it really runs: `cpu`, `cuda`."""
    precision: str
    """`fp32`, `int8`, `int4`."""
    config: ModelConfig
    tokenizer: Tokenizer

    def reset(self, rows: int, capacity: int) -> None:
        """Start over with the empty slots 0 to `rows` - 1.

        From now on every slot may grow to `capacity` tokens; before the first call, to the model's context.
        """

    def open_slot(self) -> int:
        """One more empty slot, a freed one where there is one."""

    def close_slot(self, row: int) -> None:
        """Give a slot back. May be called from any thread, and between the steps of other rows."""

    def length(self, row: int) -> int:
        """Tokens a slot holds."""

    def truncate(self, row: int, length: int) -> None:
        """Forget a slot's tokens from position `length` on; what was before them stays."""

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Give the slot `target` the first `length` tokens of `source` in place of its own."""

    def prefill(self, row: int, tokens: Sequence[int]) -> Floats:
        """Append `tokens` (at least one) to a slot; (V,) logits after the last. May be called again on a slot
        that already holds tokens: that is a chunked prefill.
        """

    def extend(self, row: int, tokens: Sequence[int]) -> Floats:
        """As `prefill`, with the (T, V) logits after each of the T tokens."""

    def decode(self, rows: Sequence[int], tokens: Sequence[int]) -> Floats:
        """Append one token to each of these slots, all different; (len(rows), V) logits."""

    def logits(self, tokens: Sequence[int]) -> Floats:
        """(T, V) logits at every position of one text; the slots stay as they are."""

    def describe(self) -> dict[str, Any]:
        """Facts for people and pages: `file_bytes`, `bits_per_byte` (None where never measured), ..."""

    def close(self) -> None:
        """Free the memory; the engine is of no use afterwards."""
