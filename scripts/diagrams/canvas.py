"""What the diagrams are drawn with: boxes, arrows and text of an SVG, in a light and a dark theme."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH = 720
"""Of every diagram, in pixels: on a phone its text is half as large, and can still be read."""
STYLE = """
  svg { --ground: #ffffff; --ink: #1d2a24; --soft: #55645c; --edge: #9fb3a8; --part: #eaf4ee; --file: #fff6dd;
        --strong: #0b6b43; --on-strong: #ffffff; }
  @media (prefers-color-scheme: dark) {
    svg { --ground: #18211d; --ink: #e4eee8; --soft: #a3b5ab; --edge: #587065; --part: #22352c;
          --file: #3a331c; --strong: #7be0b0; --on-strong: #0d1c15; }
  }
  text { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--ink); }
  .name { font-weight: 600; font-size: 15px; }
  .soft { fill: var(--soft); font-size: 13px; }
  .head { fill: var(--strong); font-weight: 600; font-size: 15px; }
  .on-strong { fill: var(--on-strong); }
  .ground { fill: var(--ground); }
  .part { fill: var(--part); stroke: var(--edge); }
  .file { fill: var(--file); stroke: var(--edge); }
  .strong { fill: var(--strong); }
  .frame { fill: none; stroke: var(--edge); stroke-dasharray: 5 4; }
  .arrow { fill: none; stroke: var(--soft); stroke-width: 1.6; marker-end: url(#tip); }
  .tip { fill: var(--soft); }
"""
LINE = 19
"""Height of a line of text, in pixels."""


class Canvas:
    """An SVG of WIDTH pixels that grows downwards."""

    def __init__(self, title: str, description: str) -> None:
        self._title, self._description = title, description
        self._shapes: list[str] = []
        self._bottom = 0.0

    def box(
        self, x: float, y: float, width: float, name: str, lines: Sequence[str] = (), kind: str = "part"
    ) -> float:
        """A box with a name and lines below it; returns the y of its lower edge.

        kind: `part` of the program, `file` on disk, or `strong`, the one that the diagram is about.
        """
        height = 14 + LINE * (1 + len(lines))
        self._shape(
            f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8"/>'
        )
        extra = " on-strong" if kind == "strong" else ""
        self.text(x + width / 2, y + 22, name, "name" + extra)
        for number, line in enumerate(lines, 1):
            self.text(x + width / 2, y + 22 + LINE * number, line, "soft" + extra)
        return self._reach(y + height)

    def lines(self, x: float, y: float, width: float, lines: Sequence[str]) -> float:
        """A box of plain lines; returns the y of its lower edge."""
        height = 12 + LINE * len(lines)
        self._shape(f'<rect class="part" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>')
        for number, line in enumerate(lines, 1):
            self.text(x + width / 2, y + LINE * number, line, "soft")
        return self._reach(y + height)

    def cell(self, x: float, y: float, side: float, kind: str) -> None:
        """A small square."""
        self._shape(f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}" rx="3"/>')

    def frame(self, x: float, y: float, width: float, height: float, name: str) -> None:
        """A dashed frame around parts, with its name above, at the left."""
        self._shape(
            f'<rect class="frame" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="10"/>'
        )
        self.text(x + 14, y + 22, name, "head", anchor="start")
        self._reach(y + height)

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> None:
        """A line of text; y is its baseline."""
        self._shape(
            f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">'
            f"{escape(words, quote=False)}</text>"
        )
        self._reach(y + 6)

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line through the points, with its tip at the last one."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self._shape(f'<polyline class="arrow" points="{path}"/>')

    def render(self) -> str:
        """The file's text."""
        height = self._bottom + 16
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}"'
                f' height="{height:g}" role="img" aria-labelledby="title desc">',
                f'<title id="title">{escape(self._title)}</title>',
                f'<desc id="desc">{escape(self._description)}</desc>',
                f"<style>{STYLE}</style>",
                '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7"'
                ' markerHeight="7" orient="auto"><path class="tip" d="M0 0L10 5L0 10z"/></marker></defs>',
                f'<rect class="ground" width="{WIDTH}" height="{height:g}" rx="12"/>',
                *self._shapes,
                "</svg>\n",
            ]
        )

    def _shape(self, text: str) -> None:
        self._shapes.append(text)

    def _reach(self, y: float) -> float:
        self._bottom = max(self._bottom, y)
        return y
