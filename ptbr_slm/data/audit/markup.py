"""Pieces of the audit page: tables, bars, and the escaping that everything from a document passes through."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from ptbr_slm.text import number

MOST_ROWS = 40
"""Of a table of licences or languages."""
LONGEST_NAME = 160
"""Characters of a source or licence that are shown."""


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that scrolls by itself where the screen is narrow; the first cell of a row is its heading."""
    head = "".join(f'<th scope="col">{text(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{text(row[0])}</th>'
        + "".join(f"<td>{text(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(caption)}"><table>'
        f"<caption>{text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def bars(heights: Sequence[float], label: str, extra: str = "") -> str:
    """A bar for each number, on a canvas of 100 by 30. The root keeps small bars visible."""
    highest = max(heights, default=0.0) or 1.0
    width = 100 / max(len(heights), 1)
    drawn = "".join(
        f'<rect x="{place * width:.2f}" width="{width * 0.9:.2f}" '
        f'y="{30 - 30 * (height / highest) ** 0.5:.2f}" height="{30 * (height / highest) ** 0.5:.2f}"/>'
        for place, height in enumerate(heights)
        if height
    )
    return (
        f'<svg viewBox="0 0 100 30" preserveAspectRatio="none" role="img" aria-label="{text(label)}">'
        f"{drawn}{extra}</svg>"
    )


def figure(value: float) -> str:
    """A figure as people read it: 50, 0,814, 100.000."""
    return number(value) if value == int(value) else f"{value:.4g}".replace(".", ",")


def largest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The most frequent values, as many as a table shows."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_ROWS]


def short_name(value: str) -> str:
    """The end of a long name: the file and the line."""
    return value if len(value) <= LONGEST_NAME else "…" + value[-LONGEST_NAME:]


def text(value: str) -> str:
    """`value` as text of a page, or as the value of an attribute between quotes."""
    return escape(visible(value))


def visible(value: str) -> str:
    """Text that UTF-8 can hold, without control characters: they are no HTML."""
    return "".join(
        char if char.isprintable() or char in " \n\t" else "\ufffd"
        for char in value.encode("utf-8", "replace").decode("utf-8")
    )
