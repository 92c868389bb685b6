"""What a generation streams and returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

FinishReason = Literal["eos", "stop", "length", "context", "cancelled", "timeout"]
"""Why a text ended: an end token (or a fulfilled constraint), a stop string or token of the caller's,
max_new_tokens, a full context, the caller's cancellation, or its time limit."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log probability of one token under the model: before penalties, bias, temperature and constraints."""

    token: int
    logprob: float
    """Natural logarithm of its probability, at most 0."""
    top: tuple[tuple[int, float], ...] = ()
    """The most probable tokens and their log probabilities, largest first; the token may be among them."""
    rank: int = field(default=0, compare=False)
    """1 for the most probable token of all: one more than the tokens that are more probable than it."""


@dataclass(frozen=True, slots=True)
class GenerationChunk:
    """One token of one text, as `stream` yields it."""

    text: str
    """What this token completes; may be empty while a character or a stop string is unfinished."""
    token: int
    """-1 on a last chunk that brings none (`cancelled`, `timeout`, `max_new_tokens=0`)."""
    row: int = 0
    """Index of the prompt in the batch."""
    finish_reason: FinishReason | None = None
    """Set on the last chunk of a text."""
    result: GenerationResult | None = None
    """The whole finished text and its figures, on its last chunk."""
    logprob: TokenLogprob | None = None
    """Of `token`, where log probabilities were asked for."""
    completion: int = 0
    """Which of the prompt's `n` completions."""
    at: float = field(default=0.0, compare=False)
    """`time.perf_counter()` when it was made, s: tells a slow engine from a slow reader."""


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
    """Decode speed of this text: tokens after the first, divided by the time they took; 0 for one token."""
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
    dropped_messages: int = 0
    """Of a conversation: its oldest messages that did not fit in the context, and were not read."""
    first_logits: npt.NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    """(V,) the model's own scores of every token for the first place after the prompt; None where not asked
    for, and where the text ended before."""
    queue_s: float = 0.0
    """Seconds from the request to the first slot; to the end where it never had one."""
    prefill_s: float = 0.0
    """Seconds from the slot to the first token; to the end where none came."""
    decode_s: float = 0.0
    """Seconds from the first token to the last."""
    stop_match: str | int | None = None
    """Which of `stop` or of `stop_token_ids` ended the text, as it was given; None for other reasons."""
