"""What a server is told: each setting with its unit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """Limits and switches of one server."""

    max_body_bytes: int = 1 << 20
    """Bytes of a request's body; more is refused with 413, counted as they come."""
