"""The status line: `54 tokens · 37 tokens/s · primeiro token 34 ms · contexto 57/512 · semente 42`."""

from __future__ import annotations

from dataclasses import dataclass

from ptbr_slm.runtime.results import FinishReason

ENDINGS: dict[FinishReason, str] = {
    "eos": "fim do texto",
    "stop": "texto de parada encontrado",
    "length": "limite de tokens",
    "context": "contexto cheio: apague o começo do texto para continuar",
}
READY = "Pronto."
READING = "Lendo o texto…"
STOPPED = "parado"


@dataclass(slots=True)
class Progress:
    """Counts and times of one continuation; times in seconds of one monotonic clock."""

    started: float
    prompt_tokens: int
    context: int
    """Tokens that the model can hold."""
    seed: int
    tokens: int = 0
    first: float = 0.0
    last: float = 0.0
    ending: FinishReason | None = None

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
        parts.append(f"contexto {min(self.prompt_tokens + self.tokens, self.context)}/{self.context}")
        parts.append(f"semente {self.seed}")
        if self.ending:
            parts.append(ENDINGS[self.ending])
        return " · ".join(parts)


def speed(value: float) -> str:
    """4.25 -> '4,2', 37.4 -> '37', 1098.0 -> '1.098'."""
    return f"{value:.1f}".replace(".", ",") if value < 10 else f"{value:,.0f}".replace(",", ".")


def stopped(line: str) -> str:
    """The status line of a continuation that the visitor stopped."""
    return STOPPED.capitalize() + "." if line in ("", READING, READY) else f"{line} · {STOPPED}"
