"""The figures on the page: the model card beside the text and the status line below it.

`54 tokens · 37 tokens/s · primeiro token 34 ms · contexto 57/512 · semente 42`. Only what was measured, or
what `Model.describe()` reads from the manifest.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ptbr_slm.app.language import Language
from ptbr_slm.runtime.results import FinishReason
from ptbr_slm.text import number

_DEVICES = {"cpu": "CPU", "cuda": "GPU (CUDA)"}
_ENGINES = {"onnx": "ONNX", "torch": "PyTorch"}

Endings = Mapping[FinishReason, tuple[str, str]]
"""How a text ended, in Portuguese and English."""

ENDINGS: Endings = {
    "eos": ("fim do texto", "end of the text"),
    "stop": ("texto de parada encontrado", "stop text found"),
    "length": ("limite de tokens", "token limit"),
    "context": (
        "contexto cheio: apague o começo do texto para continuar",
        "context full: delete the beginning of the text to go on",
    ),
    "timeout": ("tempo esgotado", "time is up"),
    "cancelled": ("interrompido", "cancelled"),
}
CHAT_ENDINGS: Endings = {
    **ENDINGS,
    "eos": ("fim da resposta", "end of the answer"),
    "context": ("contexto cheio: comece uma nova conversa", "context full: start a new conversation"),
}


@dataclass(slots=True)
class Progress:
    """Counts and times of one continuation; times in seconds of one monotonic clock."""

    started: float
    context: int
    """Tokens that the model can hold."""
    seed: int
    prompt_tokens: int | None = None
    """None while it is not known."""
    tokens: int = 0
    first: float = 0.0
    last: float = 0.0
    ending: FinishReason | None = None
    endings: Endings = field(default_factory=lambda: ENDINGS)
    language: Language = "pt"
    dropped_messages: int = 0
    """Of a conversation, those that did not fit in the context."""

    def token(self, now: float, ending: FinishReason | None) -> None:
        """One more token, at time `now`."""
        self.first = self.first or now
        self.last = now
        self.tokens += 1
        self.ending = ending

    @property
    def tokens_per_second(self) -> float:
        """Tokens after the first, divided by the time they took; 0 until there are two."""
        elapsed = self.last - self.first
        return (self.tokens - 1) / elapsed if elapsed > 0 else 0.0

    def line(self) -> str:
        """The status line."""
        english = self.language == "en"
        parts = [f"{self.tokens} token{'s' if self.tokens != 1 else ''}"]
        if self.tokens_per_second:
            parts.append(f"{speed(self.tokens_per_second, self.language)} tokens/s")
        first_ms = max(1, round(1000 * (self.first - self.started)))
        parts.append(f"{'first' if english else 'primeiro'} token {first_ms} ms")
        if self.prompt_tokens is not None:
            used = min(self.prompt_tokens + self.tokens, self.context)
            parts.append(f"{'context' if english else 'contexto'} {used}/{self.context}")
        parts.append(f"{'seed' if english else 'semente'} {self.seed}")
        if self.ending:
            parts.append(self.endings[self.ending][english])
        if count := self.dropped_messages:
            left_out = (
                f"{count} mensage{'ns antigas' if count > 1 else 'm antiga'} fora do contexto",
                f"{count} old message{'s' if count > 1 else ''} left out of the context",
            )
            parts.append(left_out[english])
        return " · ".join(parts)


def speed(value: float, language: Language = "pt") -> str:
    """4.25 -> '4,2', 37.4 -> '37', 1098.0 -> '1.098'; with the points and commas of the language."""
    return _number(value, 1 if value < 10 else 0, language)


def _number(value: float, decimals: int, language: Language) -> str:
    return f"{value:,.{decimals}f}" if language == "en" else number(value, decimals)


def card_lines(facts: Mapping[str, Any], language: Language = "pt") -> list[tuple[str, str]]:
    """(label, value); what is not known has no line."""
    english = language == "en"

    def tokens(count: int) -> str:
        return f"{_number(count, 0, language)} tokens"

    made = [
        (("Parâmetros", "Parameters"), _maybe(facts.get("parameters"), lambda n: short_count(n, language))),
        (("Formato", "Format"), format_of(facts)),
        (("Tamanho", "Size"), _maybe(facts.get("file_bytes"), lambda n: megabytes(n, language))),
        (("Dispositivo", "Device"), _maybe(facts.get("device"), lambda name: _DEVICES.get(name, str(name)))),
        (("Contexto", "Context"), _maybe(facts.get("context"), tokens)),
        (("Vocabulário", "Vocabulary"), _maybe(facts.get("vocab_size"), tokens)),
        (
            ("Bits por byte", "Bits per byte"),
            _maybe(facts.get("bits_per_byte"), lambda v: _number(v, 2, language)),
        ),
    ]
    return [(labels[english], value) for labels, value in made if value]


def model_card(facts: Mapping[str, Any], language: Language = "pt") -> str:
    """The card as HTML."""
    lines = "".join(
        f"<dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd>"
        for label, value in card_lines(facts, language)
    )
    return f"<h2>{'Model' if language == 'en' else 'Modelo'}</h2><dl>{lines}</dl>"


def format_of(facts: Mapping[str, Any]) -> str:
    """{'engine': 'onnx', 'precision': 'int8', ...} -> 'ONNX int8'."""
    engine = str(facts.get("engine") or "")
    return " ".join(filter(None, [_ENGINES.get(engine, engine), str(facts.get("precision") or "")]))


def _maybe(value: Any, show: Callable[[Any], str]) -> str:
    return "" if value is None else show(value)


def short_count(value: int, language: Language = "pt") -> str:
    """87_500_000 -> '87,5 milhões', in English '87.5 million'."""
    for size, one, many, english in [
        (10**9, "bilhão", "bilhões", "billion"),
        (10**6, "milhão", "milhões", "million"),
        (10**3, "mil", "mil", "thousand"),
    ]:
        if value >= size:
            scaled = round(value / size, 1)
            text = _number(scaled, 0 if scaled == int(scaled) else 1, language)
            return f"{text} {english if language == 'en' else one if scaled < 2 else many}"
    return str(value)


def megabytes(value: float, language: Language = "pt") -> str:
    """85_300_000 -> '85,3 MB'."""
    return f"{_number(value / 1e6, 1, language)} MB"
