"""What the process of a section is asked."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One section, on one device, within a time."""

    section: str
    device: str
    """`cuda` or `cpu`."""
    cards: int
    """Visible GPUs; 0 on a CPU."""
    smoke: bool
    """Whether everything is shrunk, to try the code and not the card."""
    limit_s: float
    """Seconds until the process is ended."""
    exporter: str = ""
    """Module that exports a model: what is below it in the layers cannot import it."""
    environment: dict[str, str] = field(default_factory=dict)
    """What the processes that run exports get on top: the unpacked wheels."""
    wheels: str = ""
    """What was found in `--wheels`, for the reader; empty where it was not given."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What earlier sections found."""
    began: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        """Seconds until this process is ended."""
        return self.limit_s - (time.monotonic() - self.began)

    def to_json(self) -> dict[str, Any]:
        """Plain values; the clock begins where it is read."""
        return {name: value for name, value in asdict(self).items() if name != "began"}
