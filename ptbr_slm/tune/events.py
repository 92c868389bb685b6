"""The events of a tuning, beside those of a training (`ptbr_slm.train.events`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ptbr_slm.events import Event, entry
from ptbr_slm.train.events import StepEvent


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


@dataclass(frozen=True, kw_only=True, slots=True)
class PairsRead(Event):
    """The pairs of answers are read and encoded, and their reference is known."""

    EVENT: ClassVar = "pairs"
    pairs: int = entry("Pares de respostas para treinar.")
    held_out: int = entry("Pares da parte de validação.")
    tokens: int = entry("Tokens dos pares para treinar, cada pergunta contada duas vezes.")
    target_tokens: int = entry("Desses, os das respostas.")
    skipped: Mapping[str, int] = entry("Motivo e quantas linhas ficaram de fora por ele.")
    folder: str = entry("A pasta em que estão preparados.")


@dataclass(frozen=True, kw_only=True, slots=True)
class PreferenceMeasured(StepEvent):
    """Held-out pairs were measured, and prompts of them answered freely."""

    EVENT: ClassVar = "preference"
    pairs: int = entry("Pares medidos.")
    won: float = entry("Parte deles em que a margem é positiva.")
    margin: float = entry("Margem média: quanto a escolhida ganhou sobre a recusada, em nats.")
    chosen: float = entry("Log-probabilidade média da resposta escolhida, em nats.")
    rejected: float = entry("O mesmo da recusada.")
    chosen_per_token: float = entry("Log-probabilidade da escolhida por token.")
    rejected_per_token: float = entry("O mesmo da recusada.")
    chosen_change: float = entry("Quanto chosen_per_token mudou desde o modelo de referência.")
    drift: float = entry("Nats por token que as duas respostas perderam: o afastamento da referência.")
    answers: int | None = entry("Respostas livres que o modelo escreveu.", optional=True)
    answer_tokens: float | None = entry("Comprimento médio delas, em tokens.", optional=True)
    ended: float | None = entry("Parte delas que terminou por si.", optional=True)
    repeated: float | None = entry("Parte dos 4-gramas delas que repete outro da mesma.", optional=True)
