"""Tokens a second against the number of clients, a line for each server."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import matplotlib.ticker

from ptbr_slm.storage.atomic import write_text

matplotlib.use("svg")
import matplotlib.pyplot as plt

COLOURS = {"ptbr-slm": "#1f4e8c", "llama-server": "#b3402a", "llama_cpp.server": "#7a7f87"}
"""By tool, the first word of a name."""
STYLES = ("-", "--")
"""First and second line of a tool."""


def draw(out: Path, speeds: Mapping[str, Mapping[int, Sequence[float]]]) -> None:
    """Write an SVG: name of a server -> clients -> tokens/s of each round; medians, with the range behind."""
    plt.rcParams.update({"svg.hashsalt": "ptbr-slm", "svg.fonttype": "none", "font.size": 10})
    figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    seen: dict[str, int] = {}
    for name, by_clients in speeds.items():
        tool = name.split()[0]
        style = STYLES[seen.setdefault(tool, 0) % len(STYLES)]
        seen[tool] += 1
        counts = sorted(by_clients)
        colour = COLOURS[tool]
        axes.plot(
            counts, [statistics.median(by_clients[n]) for n in counts],
            style, marker="o", markersize=4, color=colour, label=name,
        )  # fmt: skip
        axes.fill_between(
            counts, [min(by_clients[n]) for n in counts], [max(by_clients[n]) for n in counts],
            color=colour, alpha=0.12, linewidth=0,
        )  # fmt: skip
    ticks = sorted({n for by_clients in speeds.values() for n in by_clients})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(matplotlib.ticker.FixedLocator(ticks))
    axes.xaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
    axes.set_ylim(bottom=0)
    axes.set_xlabel("clientes ao mesmo tempo")
    axes.set_ylabel("tokens/s, de todos juntos")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text.getvalue())
