"""Scores as SVG: a dot for each, its interval, chance, and the published models. Drawn here, as one text.

A panel is as wide as a telephone, with each name above its own line; a page lays panels out in columns.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from ptbr_slm.eval.report.rows import Row, bits_cells, sections
from ptbr_slm.eval.results import Results
from ptbr_slm.eval.statistics import Interval
from ptbr_slm.text import number

WIDTH = 360
"""Of a panel, in CSS pixels."""
_LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 8, 8, 30, 36, 26
_LONGEST = 44
"""Characters of a name that fit beside the value."""
_MOST_ROWS = 22
"""Lines of a panel; more go into the next."""

_TICKS = ((0.0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1.0, "end"))
"""Where on the axis a label stands, and how."""

STYLE = (
    ".notas{font:12px system-ui,sans-serif;color:var(--suave,#5b6472);width:100%;max-width:34rem;height:auto}"
    ".notas text{fill:currentColor}.notas .nome{fill:var(--texto,#1c2430)}"
    ".notas .titulo{font-size:14px;font-weight:600;fill:var(--texto,#1c2430)}"
    ".notas .valor{font-weight:600;text-anchor:end;fill:var(--linha,#1f4e8c)}"
    ".notas .trilho{stroke:currentColor;stroke-opacity:.25}.notas .eixo{font-size:11px}"
    ".notas .faixa{stroke:var(--linha,#1f4e8c);stroke-width:5;stroke-opacity:.35;stroke-linecap:round}"
    ".notas .ponto{fill:var(--linha,#1f4e8c)}.notas .acaso{stroke:#b3402a;stroke-width:2}"
    ".notas .outro{fill:none;stroke:currentColor;stroke-width:1.2}"
    ".notas .nada .nome{fill:currentColor}.notas .nada .valor{fill:currentColor;font-weight:400}"
    ".notas .nada .ponto{fill:currentColor}.notas .nada .faixa{stroke:currentColor;stroke-opacity:.3}"
)
"""CSS of the panels; a page may set --texto, --suave and --linha."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A line of a panel, in the panel's unit."""

    name: str
    shown: str
    value: float
    interval: Interval | None = None
    chance: float | None = None
    others: Sequence[tuple[str, float]] = ()
    """(published model, value)."""
    is_claim: bool = True


def panels(results: Results) -> list[str]:
    """The SVG of each panel: bits per byte, grammar, tasks."""
    found = []
    bits = [Mark(each.name, bits_cells(each)[0], each.value, each.interval) for each in results.bits]
    if bits:
        highest = max(mark.interval.high if mark.interval else mark.value for mark in bits)
        found += _split("Bits por byte (menor é melhor)", bits, _round_up(highest), "")
    for section in sections(results):
        marks = [_mark(row) for row in section.rows if row.is_share]
        found += _split(section.title, marks, 100.0, " %")
    return found


def sheet(drawings: Sequence[str], columns: int = 2) -> str:
    """These panels in one SVG file, on white."""
    gap = 20
    heights = [0] * columns
    placed = []
    for drawing in drawings:
        column = heights.index(min(heights))
        height = int(drawing.partition(f'viewBox="0 0 {WIDTH} ')[2].partition('"')[0])
        x, y = gap + column * (WIDTH + gap), gap + heights[column]
        heights[column] += height + gap
        positioned = f'<svg x="{x}" y="{y}" width="{WIDTH}" height="{height}"'
        placed.append(drawing.replace("<svg", positioned, 1))
    used = columns if len(drawings) >= columns else max(1, len(drawings))
    width, height = used * (WIDTH + gap) + gap, max(heights, default=0) + gap
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(placed)}</svg>\n"
    )


def _mark(row: Row) -> Mark:
    interval = row.interval and Interval(100 * row.interval.low, 100 * row.interval.high)
    return Mark(
        name=row.label,
        shown=row.shown(row.value),
        value=100 * row.value,
        interval=interval,
        chance=None if row.chance is None else 100 * row.chance,
        others=[(model, 100 * value) for model, value in row.published.items()],
        is_claim=not row.reading,
    )


def _split(title: str, marks: Sequence[Mark], end: float, unit: str) -> list[str]:
    count = -(-len(marks) // _MOST_ROWS)
    size = -(-len(marks) // max(1, count))
    parts = [marks[start : start + size] for start in range(0, len(marks), max(1, size))]
    titles = [title if index == 0 else f"{title}, continuação" for index in range(len(parts))]
    return [_panel(name, part, end, unit) for name, part in zip(titles, parts, strict=True)]


def _panel(title: str, marks: Sequence[Mark], end: float, unit: str) -> str:
    height = _TOP + _ROW * len(marks) + _BOTTOM
    lines = [_line(mark, _TOP + _ROW * index, end) for index, mark in enumerate(marks)]
    axis = "".join(
        f'<text class="eixo" x="{_x(share * end, end):.1f}" y="{height - 8}" text-anchor="{anchor}">'
        f"{number(share * end, 0 if end >= 10 else 1)}{unit if share else ''}</text>"
        for share, anchor in _TICKS
    )
    return (
        f'<svg class="notas" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{_safe(title)}">'
        f'<text class="titulo" x="{_LEFT}" y="16">{_safe(title)}</text>{"".join(lines)}{axis}</svg>'
    )


def _line(mark: Mark, top: int, end: float) -> str:
    name = mark.name if len(mark.name) <= _LONGEST else mark.name[: _LONGEST - 1] + "…"
    y = top + 22
    parts = [
        f'<text class="nome" x="{_LEFT}" y="{top + 12}">{_safe(name)}</text>',
        f'<text class="valor" x="{WIDTH - _RIGHT}" y="{top + 12}">{mark.shown}</text>',
        f'<line class="trilho" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>',
    ]
    if mark.interval is not None:
        low, high = _x(mark.interval.low, end), _x(mark.interval.high, end)
        parts.append(f'<line class="faixa" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>')
    if mark.chance is not None:
        x = _x(mark.chance, end)
        parts.append(f'<line class="acaso" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 5}" y2="{y + 5}"/>')
    for model, value in mark.others:
        title = f"<title>{_safe(model)}: {number(value, 1)}</title>"
        parts.append(f'<circle class="outro" cx="{_x(value, end):.1f}" cy="{y}" r="4">{title}</circle>')
    parts.append(f'<circle class="ponto" cx="{_x(mark.value, end):.1f}" cy="{y}" r="4"/>')
    return f'<g class="{"" if mark.is_claim else "nada"}">{"".join(parts)}</g>'


def _x(value: float, end: float) -> float:
    return _LEFT + min(max(value / end, 0.0), 1.0) * (WIDTH - _LEFT - _RIGHT)


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 8 that holds it."""
    end = 1.0
    while end < value:
        end *= 2
    return end


def _safe(text: str) -> str:
    return html.escape(text)
