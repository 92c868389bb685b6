"""The protocol of both engines, and what they share about slots: capacities and the checks of a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.drafting.layer import DraftScores
from ptbr_slm.runtime.sampling.params import Draw
from ptbr_slm.runtime.targets import ScoringSession
from ptbr_slm.tokenizer import Tokenizer

Floats = npt.NDArray[np.float32]

SMALLEST_BUCKET = 256
"""Tokens. Capacities double from here: few bindings, and memory within 2x of the tokens in use."""

PREFILL_CHUNK = 256
"""Tokens of a prompt run at once: bounds activations, and how long other sequences wait for a long prompt."""


class Engine(Protocol):
    """Runs the model's step on independent slots. Both engines give the same logits within 1e-4.

    A slot holds the keys and values of one sequence. Every method returns arrays of the caller's own, unless
    they are asked for lent: then the next call may overwrite them. `Model` adds the lock; only `close_slot`
    needs none.
    """

    name: str
    """`onnx` or `torch`."""
    device: str
    """Where it really runs: `cpu`, `cuda`."""
    precision: str
    """`fp32`, `fp16`, `int8`, `int4`."""
    config: ModelConfig
    tokenizer: Tokenizer

    @property
    def draws_tokens(self) -> bool:
        """Whether `decode_drawn` chooses tokens where the logits are; otherwise it returns logits only."""

    @property
    def draft_acceptance(self) -> float | None:
        """Part of its guesses that the draft layer's training found right; None where no layer came along."""

    @property
    def kv_bytes(self) -> int:
        """Bytes of the key and value buffers now."""

    def reset(self, slots: int, capacity: int) -> None:
        """Start over with the empty slots 0 to `slots` - 1.

        From now on every slot may grow to `capacity` tokens; before the first call, to the model's context.
        """

    def open_slot(self) -> int:
        """One more empty slot, a freed one where there is one."""

    def close_slot(self, slot: int) -> None:
        """Give a slot back. May be called from any thread, and between the steps of other slots."""

    def length(self, slot: int) -> int:
        """Tokens a slot holds."""

    def truncate(self, slot: int, length: int) -> None:
        """Forget a slot's tokens from position `length` on; what was before them stays."""

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Give the slot `target` the first `length` tokens of `source` in place of its own."""

    def prefill(self, slot: int, tokens: Sequence[int]) -> Floats:
        """Append `tokens` (at least one) to a slot; (V,) logits after the last. May be called again on a slot
        that already holds tokens: that is a chunked prefill.
        """

    def extend(self, slot: int, tokens: Sequence[int], *, lent: bool = False) -> Floats:
        """As `prefill`, with the (T, V) logits after each of the T tokens."""

    def decode(self, slots: Sequence[int], tokens: Sequence[int], *, lent: bool = False) -> Floats:
        """Append one token to each of these slots, all different; (len(slots), V) logits."""

    def decode_drawn(
        self, slots: Sequence[int], tokens: Sequence[int], draws: Sequence[Draw | None]
    ) -> Sequence[int | Floats]:
        """As `decode`, with each slot's next token by its draw.

        (V,) logits where the host must choose: there is no draw, or it needs more than the engine looks at.
        """

    def draft(self, slot: int, token: int) -> DraftScores | None:
        """What a draft layer expects after `token`, which was chosen after the slot's tokens, and is not run.

        None where there is no layer, or the engine no longer knows the state that it starts from: that of the
        last call's tokens only.
        """

    def logits(self, tokens: Sequence[int]) -> Floats:
        """(T, V) logits at every position of one text; the slots stay as they are."""

    def scoring(self) -> ScoringSession:
        """Empty slots of its own over the same weights, for the probabilities of given tokens.

        Opening and running it takes the engine, as any method; the engine's slots stay as they are.
        """

    def describe(self) -> dict[str, Any]:
        """Facts for people and pages: `file_bytes`, `bits_per_byte` (None where never measured), ..."""

    def close(self) -> None:
        """Free the memory; the engine is of no use afterwards."""


def bucket(tokens: int, limit: int) -> int:
    """The capacity for `tokens` tokens: 256, 512, 1024, ..., at most `limit`."""
    capacity = SMALLEST_BUCKET
    while capacity < tokens:
        capacity *= 2
    return min(capacity, limit)


def check_capacity(config: ModelConfig, capacity: int) -> None:
    """Refuse a capacity beyond the model's context. Raises E_SEQ_LEN."""
    if not 1 <= capacity <= config.max_seq_len:
        raise SlmError(
            "E_SEQ_LEN",
            f"foram pedidos {capacity} tokens por texto; o contexto do modelo é de {config.max_seq_len}.",
            where="capacity",
            hint=f"Use de 1 a {config.max_seq_len} tokens.",
        )


def check_ids(config: ModelConfig, tokens: Sequence[int]) -> None:
    """Refuse no tokens, or ids outside the vocabulary. Raises E_PROMPT."""
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


def check_length(total: int, limit: int) -> None:
    """Refuse a text of `total` tokens where `limit` fit. Raises E_PROMPT_TOO_LONG."""
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


def busy_error(what: str) -> SlmError:
    """The error for a request that the queue has no room for. what: the limit that was met."""
    return SlmError("E_BUSY", f"o modelo está ocupado: {what}.", hint="Tente de novo daqui a pouco.")
