"""What was left out of the data or repaired on the way, counted by reason, with a few places to look at."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

REASONS: dict[str, str] = {
    "not_utf8": "não está em UTF-8",
    "binary": "é binário, não é texto",
    "empty": "está vazio",
    "too_short": "tem menos de duas palavras",
    "too_long": "linha ou campo acima de 8 MiB",
    "bad_json": "linha que não é JSON",
    "no_text": 'sem o campo "text"',
    "duplicate": "cópia exata de outro",
    "corrupt_file": "arquivo compactado ou Parquet quebrado: o resto dele se perdeu",
    "unknown_format": "arquivo de outro tipo",
}
"""Why a document was dropped -> how a report says it."""

REPAIRS: dict[str, str] = {
    "unwrapped": "linhas quebradas à mão foram emendadas",
    "mojibake": "acentos trocados (Ã£, Ã©) foram recuperados",
    "split": "arquivo acima de 8 MiB, dividido entre parágrafos",
}
"""What was changed in a document that was kept (for `split`: extra pieces) -> how a report says it."""

EXAMPLES = 3
"""Places remembered for each reason."""


@dataclass(slots=True)
class DropCounts:
    """Documents dropped by reason, documents repaired, and how much of the input has been read."""

    dropped: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> up to `EXAMPLES` places, such as `textos/a.jsonl:17`."""
    input_bytes: int = 0
    """Bytes of the input files read so far, compressed ones as they lie on disk."""

    def drop(self, reason: str, source: str, count: int = 1) -> None:
        """Count `count` documents from `source` as dropped; `reason` is a key of `REASONS`."""
        self._remember(self.dropped, reason, source, count)

    def repair(self, kind: str, source: str) -> None:
        """Count a document from `source` as repaired; `kind` is a key of `REPAIRS`."""
        self._remember(self.repaired, kind, source, 1)

    def _remember(self, counter: Counter[str], key: str, source: str, count: int) -> None:
        counter[key] += count
        places = self.examples.setdefault(key, [])
        if len(places) < EXAMPLES:
            places.append(source)
