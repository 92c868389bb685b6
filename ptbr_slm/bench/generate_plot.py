"""The picture of `bench generate`: bars, drawn here, for a page that shows SVG."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

from ptbr_slm.bench.generate_cases import Figures, GenerateBench, Spread
from ptbr_slm.brazilian import number
from ptbr_slm.train.reporting.curves import axis

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 460, 260, 56, 48, 34
COLORS = ("#1f4e8c", "#b3402a", "#2c7a51", "#7a5c1f")
"""One a model, in order."""


def picture(bench: GenerateBench) -> str:
    """Writing and reading speed by batch, a bar a model with its lowest and highest, as one SVG file."""
    panels = [
        _panel(bench, "escrita, tokens/s por tamanho do lote", "decode", 0),
        _panel(bench, "leitura do texto inicial, tokens/s por tamanho do lote", "prefill", WIDTH + 20),
    ]
    width = 2 * WIDTH + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" '
        f'height="{HEIGHT}" font-family="system-ui,sans-serif" font-size="11" fill="#3c4552">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(panels)}</svg>\n'
    )


def _panel(bench: GenerateBench, title: str, field: str, x: int) -> str:
    """One panel of the longest prompt's figures."""
    named = [(entrant.name, _longest(entrant_figures(bench, entrant.name))) for entrant in bench.entrants]
    batches = sorted({batch for _, figures in named for batch in figures})
    values = [getattr(figure, field).high for _, figures in named for figure in figures.values()]
    if not values:
        return ""
    _, top, ticks = axis([0.0, *values])
    floor, room = HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP

    def height(value: float) -> float:
        return floor - room * value / top

    parts = [f'<text x="8" y="16" font-size="12" font-weight="600">{html.escape(title)}</text>']
    for tick in ticks:
        y = height(tick)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d5d9e0"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    group = (WIDTH - LEFT - 8) / len(batches)
    bar = 0.7 * group / len(named)
    for place, batch in enumerate(batches):
        left = LEFT + place * group
        parts.append(
            f'<text x="{left + group / 2:.1f}" y="{HEIGHT - 14}" text-anchor="middle">{batch}</text>'
        )
        for index, (_, figures) in enumerate(named):
            if batch in figures:
                at = left + 0.15 * group + index * bar
                parts.append(_bar(getattr(figures[batch], field), at, bar, height, floor, COLORS[index % 4]))
    parts += [_legend(index, name) for index, (name, _) in enumerate(named)]
    return f'<g transform="translate({x},0)">{"".join(parts)}</g>'


def entrant_figures(bench: GenerateBench, name: str) -> Sequence[Figures]:
    """All figures of one model."""
    entrant = next(entrant for entrant in bench.entrants if entrant.name == name)
    return [figures for result in entrant.results for figures in result.figures]


def _longest(figures: Sequence[Figures]) -> dict[int, Figures]:
    """batch -> the figures with the longest prompt."""
    return {f.batch: f for f in sorted(figures, key=lambda f: f.prompt)}


def _bar(
    spread: Spread, at: float, width: float, height: Callable[[float], float], floor: float, color: str
) -> str:
    y, middle = height(spread.median), at + width / 2
    return (
        f'<rect x="{at:.1f}" y="{y:.1f}" width="{0.9 * width:.1f}" height="{floor - y:.1f}" fill="{color}"/>'
        f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{height(spread.low):.1f}" '
        f'y2="{height(spread.high):.1f}" stroke="#111"/>'
        f'<text x="{middle:.1f}" y="{height(spread.high) - 3:.1f}" text-anchor="middle">'
        f"{number(spread.median)}</text>"
    )


def _legend(index: int, name: str) -> str:
    x = LEFT + 130 * index
    return (
        f'<rect x="{x}" y="24" width="10" height="10" fill="{COLORS[index % 4]}"/>'
        f'<text x="{x + 14}" y="33">{html.escape(name[:18])}</text>'
    )
