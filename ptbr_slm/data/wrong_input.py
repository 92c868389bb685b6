"""How much of a source may be wrong: lines, rows and files that no document could be made of.

Single ones are counted, named and passed over. Where they are more than a share of the source, the source is
another than the user thinks (another field, another encoding, a broken copy), and the run stops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ptbr_slm.data.document import Skipped, describe_dropped
from ptbr_slm.errors import SlmError
from ptbr_slm.text import UTF16_HINT, number

MAX_WRONG = 0.01
"""Share of a source's lines and files."""
ALWAYS_ALLOWED = 100
"""Wrong lines and files that no source is stopped for."""
WRONG = frozenset(
    {
        "not_utf8",
        "utf16",
        "binary",
        "too_long",
        "bad_json",
        "no_text",
        "bad_row",
        "corrupt_file",
        "corrupt_rows",
        "unreadable",
        "bomb",
    }
)
"""Reasons that tell of something wrong: not an empty file, nor one of another type in a folder."""
_HINTS = {
    "no_text": "Diga o campo do texto (--text-field CAMPO; na mistura, text_field)",
    "not_utf8": "Converta os textos (iconv -f latin1 -t utf-8 ANTIGO > NOVO)",
    "utf16": f"Converta os textos ({UTF16_HINT})",
    "corrupt_file": "Copie ou baixe os arquivos de novo",
    "corrupt_rows": "Copie ou baixe os arquivos de novo",
    "unreadable": "Confira as permissões (ls -l)",
}


@dataclass(slots=True)
class SourceLimit:
    """What was read of one source, and how much of it was wrong."""

    name: str
    max_wrong: float
    size: int
    """Bytes of its files; 0 where unknown."""
    items: int = 0
    """Documents, and lines and files that are none."""
    wrong: Counter[str] = field(default_factory=Counter)
    example: str = ""

    def add(self, found: object) -> None:
        """Count something of the source."""
        if not isinstance(found, Skipped):
            self.items += 1
            return
        self.items += found.count
        if found.reason in WRONG:
            self.wrong[found.reason] += found.count
            self.example = self.example or found.source

    def check(self, read: int | None = None) -> None:
        """Raise E_DATA_WRONG where the source has more wrong lines than it may.

        read: bytes of the source that were read, None at its end. What is to come is expected to have as many
        lines a byte.
        """
        wrong = self.wrong.total()
        if wrong <= ALWAYS_ALLOWED or (read is not None and not (self.size and read)):
            return
        expected = self.items if read is None else self.items * max(self.size / read, 1.0)
        if wrong <= self.max_wrong * expected:
            return
        most = self.wrong.most_common(1)[0][0]
        raise SlmError(
            "E_DATA_WRONG",
            f"{number(wrong)} das {number(self.items)} linhas ou arquivos lidos de {self.name} estão errados "
            f"e o limite é {number(100 * self.max_wrong, 1)} % da fonte: {describe_dropped(self.wrong)}.",
            where=self.example,
            hint=f"{_HINTS.get(most, 'Confira este arquivo')}, ou aceite a perda: --max-wrong 1 "
            "(na mistura, max_wrong = 1.0).",
        )


class WrongInputLimits:
    """The limits of all sources of a recipe."""

    def __init__(self, sources: Sequence[SourceLimit], state: dict[str, Any]) -> None:
        """sources: in the order of reading. state: of the run that this one continues, or empty."""
        self._sources = sources
        for source, (items, wrong, example) in zip(sources, state.get("sources", ()), strict=False):
            source.items, source.wrong, source.example = items, Counter(wrong), example

    def add(self, source: int, found: object) -> None:
        """Count something of a source."""
        self._sources[source].add(found)

    def check(self, input_bytes: int | None = None) -> None:
        """Raise E_DATA_WRONG for a source over its limit.

        input_bytes: read of all sources, None at their end.
        """
        for source in self._sources:
            source.check(input_bytes if input_bytes is None else min(source.size, input_bytes))
            if input_bytes is not None:
                input_bytes = max(0, input_bytes - source.size)

    def state(self) -> dict[str, Any]:
        """Everything counted, as JSON holds it."""
        return {"sources": [[s.items, dict(s.wrong), s.example] for s in self._sources]}
