"""What both engines share about slots: capacity buckets and the checks of a call."""

from __future__ import annotations

from collections.abc import Sequence

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError

SMALLEST_BUCKET = 256
"""Tokens. Capacities double from here: few bindings, and memory within 2x of the tokens in use."""

PREFILL_CHUNK = 256
"""Tokens of a prompt run at once: bounds activations, and how long other rows wait for a long prompt."""


def bucket(tokens: int, limit: int) -> int:
    """The capacity for `tokens` tokens: 256, 512, 1024, ..., at most `limit`."""
    capacity = SMALLEST_BUCKET
    while capacity < tokens:
        capacity *= 2
    return min(capacity, limit)


def check_capacity(config: ModelConfig, capacity: int) -> None:
    """Refuse a capacity beyond the model's context."""
    if not 1 <= capacity <= config.max_seq_len:
        raise SlmError(
            "E_SEQ_LEN",
            f"foram pedidos {capacity} tokens por texto; o contexto do modelo é de {config.max_seq_len}.",
            where="capacity",
            hint=f"Use de 1 a {config.max_seq_len} tokens.",
        )


def check_ids(config: ModelConfig, tokens: Sequence[int]) -> None:
    """Refuse no tokens, or ids outside the vocabulary."""
    if not len(tokens):
        raise SlmError(
            "E_PROMPT", "é preciso pelo menos um token.", where="tokens", hint="Passe uma lista de ids."
        )
    if min(tokens) < 0 or max(tokens) >= config.vocab_size:
        raise SlmError(
            "E_PROMPT",
            f"há um token fora do vocabulário (0 a {config.vocab_size - 1}).",
            where="tokens",
            hint="Use ids do tokenizador deste mesmo modelo.",
        )


def check_room(total: int, limit: int) -> None:
    """Refuse a text of `total` tokens where `limit` fit."""
    if total > limit:
        raise SlmError(
            "E_PROMPT_TOO_LONG",
            f"o texto chega a {total} tokens; cabem {limit}.",
            where="tokens",
            hint="Use um texto mais curto.",
        )


def closed_error() -> SlmError:
    """The error for a call after `close`."""
    return SlmError("E_CLOSED", "o modelo já foi fechado.", hint="Abra de novo com ptbr_slm.load(PASTA).")
