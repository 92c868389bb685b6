"""The table that `ptbr-slm eval` prints: 80 columns, in grey what means nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from ptbr_slm.eval.evaluation import Evaluation
from ptbr_slm.eval.report.rows import METRICS, READINGS, Row, Section, sections
from ptbr_slm.text import number

WIDTH = 80
_GREY, _BOLD, _END = "\x1b[90m", "\x1b[1m", "\x1b[0m"


def table(found: Evaluation, *, color: bool = False) -> str:
    """Name and facts of the model, then each section. color: ANSI grey and bold."""
    parts = [_head(found)]
    shown = sections(found)
    parts += [_section(section, color) for section in shown]
    readings = {row.reading for section in shown for row in section.rows if row.reading}
    notes = [_paint(f"{reading}: {READINGS[reading]}", _GREY, color) for reading in sorted(readings)]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def _head(found: Evaluation) -> str:
    facts = [found.name]
    if found.parameters is not None:
        facts.append(f"{number(found.parameters)} parâmetros")
    facts.append(f"contexto {number(found.context)}")
    return " · ".join(facts)


def _section(section: Section, color: bool) -> str:
    header = [section.title, "%", "95 %", "acaso", "itens", ""]
    cells = [_cells(row) for row in section.rows]
    widths = [max(len(line[column]) for line in [header, *cells]) for column in range(len(header))]
    widths[0] = WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)
    for line in cells:
        line[0] = textwrap.shorten(line[0], widths[0], placeholder="…")
    lines = [_paint(_lay(header, widths), _BOLD, color)]
    for row, line in zip(section.rows, cells, strict=True):
        lines.append(_paint(_lay(line, widths), _GREY if row.reading else "", color))
        lines += [_paint(text, _GREY, color) for text in _published(row)]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    name = row.name if row.metric == "acc" else f"{row.name}, {METRICS[row.metric]}"
    chance = "" if row.chance is None else row.shown(row.chance)
    items = number(row.items) if row.items == row.of else f"{number(row.items)} de {number(row.of)}"
    return [name, row.shown(row.value), row.shown_interval, chance, items, row.reading]


def _lay(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *numbers, last = cells
    middle = [cell.rjust(width) for cell, width in zip(numbers, widths[1:-1], strict=True)]
    return "  ".join([first.ljust(widths[0]), *middle, last]).rstrip()


def _published(row: Row) -> list[str]:
    """Published scores by the same protocol, the closest first."""
    if not row.published:
        return []
    near = sorted(row.published.items(), key=lambda entry: abs(entry[1] - row.value))
    text = " · ".join(f"{model} {row.shown(value)}" for model, value in near)
    return textwrap.wrap(text, WIDTH, initial_indent="  publicados: ", subsequent_indent="    ", max_lines=2,
                         placeholder=" …", break_long_words=False)  # fmt: skip


def _paint(text: str, code: str, color: bool) -> str:
    return f"{code}{text}{_END}" if color and code else text
