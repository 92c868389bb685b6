"""What the runtime takes, streams and returns, and the protocol both engines keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ptbr_slm.config import ModelConfig
from ptbr_slm.runtime.sampling.params import SamplingParams as SamplingParams
from ptbr_slm.tokenizer import Tokenizer

FinishReason = Literal["eos", "stop", "length", "context", "cancelled", "timeout"]
"""Why a text ended: the model said so (or a constraint was fulfilled), a stop string, max_new_tokens, a full
context, the caller's cancellation, or its time limit."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """What the model itself thought of one token: before penalties, bias, temperature and any constraint."""

    token: int
    logprob: float
    """Natural logarithm of its probability, at most 0."""
    top: tuple[tuple[int, float], ...] = ()
    """The most probable tokens and their log probabilities, largest first; the token may be among them."""


@dataclass(frozen=True, slots=True)
class GenerationChunk:
    """One token of one text, as `stream` yields it."""

    text: str
    """What this token completes; may be empty while a character or a stop string is unfinished."""
    token: int
    """-1 on a last chunk that brings none (`cancelled`, `timeout`)."""
    row: int = 0
    """Index of the prompt in the batch."""
    finish_reason: FinishReason | None = None
    """Set on a row's last chunk."""
    result: GenerationResult | None = None
    """The whole finished text and its figures, on a row's last chunk."""
    logprob: TokenLogprob | None = None
    """Of `token`, where log probabilities were asked for."""
    completion: int = 0
    """Which of the prompt's `n` completions."""


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
    logprobs: tuple[TokenLogprob, ...] | None = None
    """One for each of `tokens`; None where not asked for."""
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
    """One for each token of the prompt, the first None: nothing comes before it. None where not asked for."""
    reused_tokens: int = 0
    """Tokens of the prompt that were in the cache already."""
    drafted: int = 0
    """Tokens guessed by `lookahead`."""
    accepted: int = 0
    """Guesses that were right: steps of the model saved."""


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
