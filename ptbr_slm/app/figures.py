"""The figures on the page: the model card beside the text and the status line below it.

`54 tokens · 37 tokens/s · primeiro token 34 ms · contexto 57/512 · semente 42`. Only what was measured, or
what `Model.describe()` reads from the manifest.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ptbr_slm.runtime.results import FinishReason
from ptbr_slm.text import number

_DEVICES = {"cpu": "CPU", "cuda": "GPU (CUDA)"}
_ENGINES = {"onnx": "ONNX", "torch": "PyTorch"}

ENDINGS: dict[FinishReason, str] = {
    "eos": "fim do texto",
    "stop": "texto de parada encontrado",
    "length": "limite de tokens",
    "context": "contexto cheio: apague o começo do texto para continuar",
    "timeout": "tempo esgotado",
    "cancelled": "interrompido",
}
CHAT_ENDINGS: dict[FinishReason, str] = ENDINGS | {
    "eos": "fim da resposta",
    "context": "contexto cheio: comece uma nova conversa",
}
READY = "Pronto."
READING = "Lendo o texto…"
STOPPED = "parado"


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
    endings: Mapping[FinishReason, str] = field(default_factory=lambda: ENDINGS)
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
        """The status line in Portuguese."""
        parts = [f"{self.tokens} token{'s' if self.tokens != 1 else ''}"]
        if self.tokens_per_second:
            parts.append(f"{speed(self.tokens_per_second)} tokens/s")
        parts.append(f"primeiro token {max(1, round(1000 * (self.first - self.started)))} ms")
        if self.prompt_tokens is not None:
            parts.append(f"contexto {min(self.prompt_tokens + self.tokens, self.context)}/{self.context}")
        parts.append(f"semente {self.seed}")
        if self.ending:
            parts.append(self.endings[self.ending])
        if self.dropped_messages:
            many = self.dropped_messages > 1
            parts.append(
                f"{self.dropped_messages} mensage{'ns antigas' if many else 'm antiga'} fora do contexto"
            )
        return " · ".join(parts)


def speed(value: float) -> str:
    """4.25 -> '4,2', 37.4 -> '37', 1098.0 -> '1.098'."""
    return number(value, 1 if value < 10 else 0)


def stopped(line: str) -> str:
    """The status line of a continuation that the visitor stopped."""
    return STOPPED.capitalize() + "." if line in ("", READING, READY) else f"{line} · {STOPPED}"


def card_lines(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(label, value) in Portuguese; what is not known has no line."""
    made = [
        ("Parâmetros", _maybe(facts.get("parameters"), short_count)),
        ("Formato", _format(facts)),
        ("Tamanho", _maybe(facts.get("file_bytes"), megabytes)),
        ("Dispositivo", _maybe(facts.get("device"), lambda name: _DEVICES.get(name, str(name)))),
        ("Contexto", _maybe(facts.get("context"), lambda n: f"{number(n)} tokens")),
        ("Vocabulário", _maybe(facts.get("vocab_size"), lambda n: f"{number(n)} tokens")),
        ("Bits por byte", _maybe(facts.get("bits_per_byte"), lambda v: number(v, 2))),
    ]
    return [(label, value) for label, value in made if value]


def model_card(facts: Mapping[str, Any]) -> str:
    """The card as HTML."""
    lines = "".join(
        f"<dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd>" for label, value in card_lines(facts)
    )
    return f"<h2>Modelo</h2><dl>{lines}</dl>"


def _format(facts: Mapping[str, Any]) -> str:
    engine = str(facts.get("engine") or "")
    return " ".join(filter(None, [_ENGINES.get(engine, engine), str(facts.get("precision") or "")]))


def _maybe(value: Any, show: Callable[[Any], str]) -> str:
    return "" if value is None else show(value)


def short_count(value: int) -> str:
    """87_500_000 -> '87,5 milhões'."""
    for size, one, many in [
        (10**9, "bilhão", "bilhões"),
        (10**6, "milhão", "milhões"),
        (10**3, "mil", "mil"),
    ]:
        if value >= size:
            scaled = round(value / size, 1)
            text = number(scaled, 1).removesuffix(",0")
            return f"{text} {one if scaled < 2 else many}"
    return str(value)


def megabytes(value: float) -> str:
    """85_300_000 -> '85,3 MB'."""
    return f"{number(value / 1e6, 1)} MB"
