"""The curves of a run as SVG, small multiples that share the axis of steps. Drawn here: no plotting library.

Each panel stands alone (`draw`), so that a page can lay them out in as many columns as fit; `sheet` puts all
of them into one picture.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ptbr_slm.text import number

WIDTH, HEIGHT = 360, 200
"""Of a panel, in CSS pixels."""
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 30, 24
"""Margins of the plot, for title and tick labels."""
MOST_POINTS = 400
"""Points of a curve; more steps are put together, a band behind their mean from the lowest to the highest."""

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One curve, or one set of dots."""

    title: str
    """What it is, in Portuguese, with its unit."""
    points: Sequence[Point]
    """(step, value), in order; what is not finite is left out."""
    smooth: bool = False
    """Draw the values faintly and an exponential mean on top."""
    dots: bool = False
    """Mark each point: few measurements."""
    decimals: int = 0
    """Of the newest value, shown beside the title."""
    level: float | None = None
    """A value to compare with, such as chance: a dotted line."""
    marks: Sequence[tuple[float, str]] = field(default=())
    """(step, what happened): dashed lines, with a text that a mouse shows."""

    def svg(self, steps: tuple[float, float]) -> str:
        """The panel over these steps (first, last); '' where it has no finite value."""
        points = finite(self.points)
        if not points:
            return ""
        exponent = _exponent(points)
        points = [(x, y * 10**-exponent) for x, y in points]
        title = self.title + (f" (×10{_superscript(exponent)})" if exponent else "")
        decimals = self.decimals if not exponent else 2
        means, band = thinned(points)
        line = _smooth(means, memory=0.5 if band else 0.9) if self.smooth else means
        level = [] if self.level is None else [self.level * 10**-exponent]
        values = [y for _, y in band or points] if not self.smooth else _inner(means, band)
        low, high, ticks = axis([*values, *level])
        scale = _Scale(steps, (low, high))
        parts = [_frame(scale, ticks, steps), *(_mark(scale, *mark) for mark in self.marks)]
        parts += [_level(scale, value) for value in level]
        if band:
            parts.append(_band(scale, means, band))
        elif self.smooth:
            parts.append(f'<polyline class="fraca" points="{scale.path(means)}"/>')
        if len(line) > 1:
            parts.append(f'<polyline class="curva" points="{scale.path(line)}"/>')
        if self.dots or len(line) == 1:
            parts += [
                f'<circle class="ponto" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in map(scale.at, line)
            ]
        newest = number(line[-1][1], decimals)
        return (
            f'<svg class="painel" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{html.escape(title)}, no fim {newest}">'
            f'<text class="titulo" x="4" y="16">{html.escape(title)}</text>'
            f'<text class="valor" x="{WIDTH - RIGHT}" y="16">{newest}</text>{"".join(parts)}</svg>'
        )


STYLE = (
    ".painel{font:11px system-ui,sans-serif;color:#5b6472;overflow:visible}.painel text{fill:currentColor}"
    ".painel .titulo{font-size:12px;font-weight:600;fill:var(--texto,#1c2430)}"
    ".painel .valor{font-size:12px;font-weight:600;text-anchor:end;fill:var(--linha,#1f4e8c)}"
    ".painel .y{text-anchor:end}.painel .grade{stroke:currentColor;stroke-opacity:.18}"
    ".painel .nivel{stroke:currentColor;stroke-dasharray:1.5 3;stroke-width:1.5}"
    ".painel .marca{stroke:#b3402a;stroke-opacity:.7;stroke-dasharray:3 3}"
    ".painel .curva{fill:none;stroke:var(--linha,#1f4e8c);stroke-width:1.8;stroke-linejoin:round}"
    ".painel .fraca{fill:none;stroke:var(--linha,#1f4e8c);stroke-opacity:.35}"
    ".painel .faixa{fill:var(--linha,#1f4e8c);fill-opacity:.18}.painel .ponto{fill:var(--linha,#1f4e8c)}"
)
"""CSS of the panels; a page may set --texto and --linha."""


def draw(panels: Sequence[Panel]) -> list[str]:
    """The SVG of each panel that has something to show, all over the same steps."""
    steps = common_steps(panels)
    return [drawing for panel in panels if (drawing := panel.svg(steps))]


def sheet(drawings: Sequence[str], columns: int = 2) -> str:
    """These panels in one SVG file, on white."""
    rows = max(1, -(-len(drawings) // columns))
    width, height = columns * (WIDTH + 16) + 16, rows * (HEIGHT + 16) + 16
    placed = []
    for index, drawing in enumerate(drawings):
        x, y = 16 + index % columns * (WIDTH + 16), 16 + index // columns * (HEIGHT + 16)
        positioned = f'<svg x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}"'
        placed.append(drawing.replace("<svg", positioned, 1))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(placed)}</svg>\n"
    )


def common_steps(panels: Sequence[Panel]) -> tuple[float, float]:
    """The first and the last step of any panel, at least one step apart."""
    ends = [x for panel in panels if panel.points for x in (panel.points[0][0], panel.points[-1][0])]
    first, last = min(ends, default=0.0), max(ends, default=0.0)
    return (first, last) if last > first else (first - 0.5, first + 0.5)


def finite(points: Sequence[Point]) -> list[Point]:
    """The points whose both coordinates are finite."""
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> tuple[list[Point], list[Point]]:
    """(means, lows and highs) of at most `most` groups; no band where every point is drawn.

    The band runs along the highs and back along the lows.
    """
    if len(points) <= most:
        return list(points), []
    borders = [index * len(points) // most for index in range(most + 1)]
    groups = [points[a:b] for a, b in itertools.pairwise(borders)]
    means = [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]
    highs = [(mean[0], max(y for _, y in g)) for mean, g in zip(means, groups, strict=True)]
    lows = [(mean[0], min(y for _, y in g)) for mean, g in zip(means, groups, strict=True)]
    return means, highs + lows[::-1]


def smoothed(values: Sequence[float], memory: float = 0.95) -> list[float]:
    """Exponential mean, corrected for its start (as Adam does)."""
    mean, weight, result = 0.0, 0.0, []
    for value in values:
        mean = memory * mean + (1 - memory) * value
        weight = memory * weight + (1 - memory)
        result.append(mean / weight)
    return result


def axis(values: Sequence[float], wanted: int = 4) -> tuple[float, float, list[float]]:
    """(low, high, ticks): ticks at 1, 2 or 5 times a power of ten that lie around the values."""
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(1.0, abs(high)):
        pad = abs(high) / 10 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return first * step, last * step, [index * step for index in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class _Scale:
    """From steps and values to pixels."""

    steps: tuple[float, float]
    values: tuple[float, float]

    def at(self, point: Point) -> Point:
        (first, last), (low, high) = self.steps, self.values
        x = LEFT + (point[0] - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        y = TOP + (high - min(high, max(low, point[1]))) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return x, y

    def path(self, points: Sequence[Point]) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self.at, points))


def _frame(scale: _Scale, ticks: Sequence[float], steps: tuple[float, float]) -> str:
    """Grid, labels of values, first, middle and last step."""
    gap = abs(ticks[1] - ticks[0])
    decimals = max(0, -math.floor(math.log10(gap) + 1e-9))
    parts = []
    for tick in ticks:
        y = scale.at((steps[0], tick))[1]
        parts.append(f'<line class="grade" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="y" x="{LEFT - 6}" y="{y + 4:.1f}">{number(tick, decimals)}</text>')
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        step = steps[0] + share * (steps[1] - steps[0])
        if step == round(step) or steps[1] - steps[0] > 10:
            x = scale.at((step, ticks[0]))[0]
            label = ("passo " if share == 0.5 else "") + number(step)
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{label}</text>')
    return "".join(parts)


def _mark(scale: _Scale, step: float, text: str) -> str:
    first, last = scale.steps
    if not first <= step <= last:
        return ""
    x = scale.at((step, scale.values[0]))[0]
    return (
        f'<line class="marca" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}">'
        f"<title>{html.escape(text)}</title></line>"
    )


def _level(scale: _Scale, value: float) -> str:
    y = scale.at((scale.steps[0], value))[1]
    return f'<line class="nivel" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _band(scale: _Scale, means: Sequence[Point], band: Sequence[Point]) -> str:
    return f'<polygon class="faixa" points="{scale.path(band)}"/>'


def _smooth(points: Sequence[Point], memory: float) -> list[Point]:
    means = smoothed([y for _, y in points], memory)
    return [(x, mean) for (x, _), mean in zip(points, means, strict=True)]


def _inner(means: Sequence[Point], band: Sequence[Point]) -> list[float]:
    """What the axis of a noisy curve must hold: one high value does not flatten all the rest."""
    values = sorted(y for _, y in band or means)
    last = len(values) - 1
    low, typical = values[int(0.01 * last)], values[int(0.98 * last)]
    return [low, max(min(values[-1], typical + 0.2 * (typical - low)), means[0][1])]


def _exponent(points: Sequence[Point]) -> int:
    """Power of ten to take out of small values: 0.0015 is shown as 1,5 (×10⁻³)."""
    largest = max(abs(y) for _, y in points)
    if largest == 0 or largest >= 0.05:
        return 0
    return 3 * math.floor(math.log10(largest) / 3)


def _superscript(exponent: int) -> str:
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
