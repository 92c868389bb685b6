"""From measurements to Markdown, and into docs/benchmarks.md between a section's two markers."""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from ptbr_slm.storage.atomic import write_text

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


def command() -> str:
    """What was typed, as the reader would type it."""
    return " ".join([f"python benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def progress(message: str) -> None:
    """Tell who waits what is being done; the tables alone go to stdout."""
    sys.stderr.write(message + "\n")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column to the left, the others, numbers, to the right."""
    rule = [":--", *["--:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *rows])


def spread(values: Sequence[float], digits: int = 0) -> str:
    """`median (smallest-largest)`."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def write_section(name: str, text: str, document: Path = DOCUMENT) -> None:
    """Replace what stands between `<!-- name:start -->` and `<!-- name:end -->`. Raises ValueError where the
    document has no such section.
    """
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    before = document.read_text(encoding="utf-8")
    after, count = re.subn(
        f"{re.escape(start)}.*?{re.escape(end)}", lambda _: f"{start}\n{text}\n{end}", before, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{document} has {count} sections {name}")
    write_text(document, after)
