"""What `bench generate` measures, and what comes of it. Plain values, for JSON both ways."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Spread:
    """Repeated measurements of one thing."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Median, smallest and largest of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def times(self, factor: float) -> Spread:
        """Every value times a positive factor."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateCase:
    """One model, read and written in one process."""

    path: str
    """An export or a model folder."""
    engine: str = "ptbr-slm"
    """`ptbr-slm`, or the peer `transformers`."""
    device: str = "auto"
    batch: int = 1
    """Texts decoded together."""
    prompts: tuple[int, ...] = (256,)
    """Lengths of the prompt, in tokens, each measured."""
    decode: int = 64
    """Tokens decoded in a row."""
    rounds: int = 5
    """Repetitions, after one that is not counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What was measured with one length of the prompt."""

    prompt: int
    batch: int
    prefill: Spread
    """Tokens/s of all rows."""
    first_token_s: Spread
    """From the prompt's ids to the first token's id, of one row, in an open and warm model."""
    decode: Spread
    """Tokens/s of all rows together."""
    step_bytes: int | None
    """Read in a step: weights, and the rows' keys and values half way through; None where unknown."""
    kv_bytes: int | None
    """Memory of keys and values, as allocated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseResult:
    """A case, and its figures or why there are none."""

    case: GenerateCase
    status: str = "ok"
    """`ok`, `error`, `oom` or `time`."""
    reason: str = ""
    device: str = ""
    """Where it really ran."""
    precision: str = ""
    parameters: int = 0
    file_bytes: int = 0
    open_s: float = 0.0
    peak_bytes: int | None = None
    """Largest resident memory of the process."""
    device_bytes: int | None = None
    """Largest memory on the GPU; None on a CPU."""
    figures: tuple[Figures, ...] = ()
    skipped: tuple[str, ...] = ()
    """Prompts that do not fit the context, in words."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entrant:
    """One of the models compared."""

    name: str
    path: str
    cold: Spread | None = None
    """Seconds from starting a process to its first character of text; None where it was not measured."""
    results: list[CaseResult] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateBench:
    """All of it."""

    machine: dict[str, Any]
    threads: int
    bandwidth: float
    """Bytes/s that the memory was read with."""
    entrants: tuple[Entrant, ...]

    def share(self, figures: Figures) -> float | None:
        """Of the measured bandwidth, what a decode step reads in its time."""
        if figures.step_bytes is None or not self.bandwidth:
            return None
        return figures.decode.median / figures.batch * figures.step_bytes / self.bandwidth

    def to_json(self) -> dict[str, Any]:
        """Plain values, the shares beside the figures they come from."""
        entrants = []
        for entrant in self.entrants:
            body = asdict(entrant)
            for result, plain in zip(entrant.results, body["results"], strict=True):
                for figures, row in zip(result.figures, plain["figures"], strict=True):
                    row["bandwidth_share"] = self.share(figures) if result.device == "cpu" else None
            entrants.append(body)
        return {
            "machine": self.machine,
            "threads": self.threads,
            "bandwidth_bytes_per_second": self.bandwidth,
            "entrants": entrants,
        }


def result_from(body: dict[str, Any]) -> CaseResult:
    """The inverse of `CaseResult.to_json`, out of a JSON file."""
    case = {**body["case"], "prompts": tuple(body["case"]["prompts"])}
    rows = [
        {**row, **{name: Spread(**row[name]) for name in ("prefill", "first_token_s", "decode")}}
        for row in body["figures"]
    ]
    return CaseResult(
        **{
            **body,
            "case": GenerateCase(**case),
            "figures": tuple(Figures(**row) for row in rows),
            "skipped": tuple(body["skipped"]),
        }
    )
