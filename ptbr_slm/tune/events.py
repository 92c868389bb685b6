"""The events of a tuning, beside those of a training (`ptbr_slm.train.events`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ptbr_slm.events import Event, entry


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversationsRead(Event):
    """The conversations are read and encoded."""

    EVENT: ClassVar = "conversations"
    conversations: int = entry("Conversas para treinar.")
    held_out: int = entry("Conversas da parte de validação.")
    tokens: int = entry("Tokens das conversas para treinar.")
    target_tokens: int = entry("Desses, os que o modelo aprende a escrever.")
    skipped: Mapping[str, int] = entry("Motivo e quantas linhas ficaram de fora por ele.")
    folder: str = entry("A pasta em que estão preparadas.")
    model: str = entry("A pasta do modelo que é ajustado.")
