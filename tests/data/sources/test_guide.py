"""The figures of docs/DADOS.md are what the catalogue and the assumptions beside them give."""

from __future__ import annotations

import re
from pathlib import Path

from ptbr_slm.data.sources.catalogue import SOURCES
from ptbr_slm.data.sources.origin import BYTES_PER_TOKEN, RetryPolicy
from ptbr_slm.text import number

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "DADOS.md").read_text(encoding="utf-8")
TOKENS = (100e6, 500e6, 2e9)


def figures(name: str) -> list[str]:
    """The three figures of a row of the first table."""
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {name} |"))
    return [match[0] for cell in row.split("|")[2:5] if (match := re.match(r"[\d,]+", cell.strip()))]


def test_sizes_and_times_are_computed_from_the_catalogue():
    source = SOURCES["fineweb2-pt"]
    assert source.download_bytes is not None and source.text_bytes is not None
    ratio = source.download_bytes / source.text_bytes
    assert f"{number(ratio, 3)}" in PAGE and f"{number(BYTES_PER_TOKEN, 1)} bytes por token" in PAGE
    text = [tokens * BYTES_PER_TOKEN / 1e9 for tokens in TOKENS]
    rows = {
        "texto (UTF-8)": text,
        "a baixar, e a guardar": [size * ratio for size in text],
        "baixar a 10 MB/s": [size * ratio * 1e3 / 10 for size in text],
        "baixar a 50 MB/s": [size * ratio * 1e3 / 50 for size in text],
        "dados preparados": [tokens * 2 / 1e9 for tokens in TOKENS],
        "preparar a 4 MB/s de texto": [size * 1e3 / 4 / 60 for size in text],
    }
    for name, computed in rows.items():
        shown = figures(name)
        decimals = [len(figure.partition(",")[2]) for figure in shown]
        assert shown == [number(value, digits) for value, digits in zip(computed, decimals, strict=True)], (
            name
        )


def test_every_source_is_in_the_table_and_the_waits_are_those_of_the_client():
    for name in SOURCES:
        assert f"| `{name}` |" in PAGE
    policy = RetryPolicy()
    assert f"esperas de {policy.first_wait_s:.0f} a {policy.longest_wait_s:.0f} s" in PAGE
    assert f"depois de {policy.attempts} tentativas" in PAGE and f"({policy.attempts_at_first}, se" in PAGE
