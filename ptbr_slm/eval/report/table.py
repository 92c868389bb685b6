"""The table that `ptbr-slm eval` prints: 80 columns, in grey what means nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from ptbr_slm.eval.report.rows import METRICS, READINGS, Row, Section, bits_cells, sections
from ptbr_slm.eval.results import BitsRecord, Results
from ptbr_slm.text import number

WIDTH = 80
_LABEL = 32
"""Characters of a name and its metric that fit in a line; longer, the metric has a line of its own."""
_GREY, _BOLD, _END = "\x1b[90m", "\x1b[1m", "\x1b[0m"


def table(results: Results, *, color: bool = False) -> str:
    """Name and facts of the model, then each section. color: ANSI grey and bold."""
    shown = sections(results)
    parts = [head(results)]
    if results.bits:
        parts.append(_bits(results.bits, color))
    parts += [_section(section, color) for section in shown]
    notes = [_wrapped(f"{one.name}: {one.message}") for one in results.refused]
    readings = {row.reading for section in shown for row in section.rows if row.reading}
    notes += [_wrapped(f"{reading}: {READINGS[reading]}") for reading in sorted(readings)]
    if notes:
        parts.append(_paint("\n".join(notes), _GREY, color))
    return "\n\n".join(parts)


def head(results: Results) -> str:
    """What was measured."""
    model = results.model
    facts = [model.name]
    if model.parameters is not None:
        facts.append(f"{number(model.parameters)} parâmetros")
    facts.append(f"contexto {number(model.context)}")
    return " · ".join(facts)


def _bits(records: Sequence[BitsRecord], color: bool) -> str:
    header = ["Bits por byte (menor é melhor)", "valor", "95 %", "documentos", "alvos", ""]
    lines = _columns(header, [[record.name, *bits_cells(record), ""] for record in records])
    found = [_paint(lines[0], _BOLD, color)]
    for record, line in zip(records, lines[1:], strict=True):
        found.append(line)
        found += [_paint(_wrapped(note, "  "), _GREY, color) for note in record.notes]
    return "\n".join(found)


def _section(section: Section, color: bool) -> str:
    header = [section.title, "%", "95 %", "acaso", "itens", ""]
    before = ["", *(row.name for row in section.rows)]
    names = [_name(row, name == row.name) for row, name in zip(section.rows, before, strict=False)]
    lines = _columns(
        header, [[name, *_cells(row)] for row, (name, _) in zip(section.rows, names, strict=True)]
    )
    found = [_paint(lines[0], _BOLD, color)]
    for row, line, (_, below) in zip(section.rows, lines[1:], names, strict=True):
        found.append(_paint(line, _GREY if row.reading else "", color))
        found += [_paint(text, _GREY, color) for text in (*below, *_published(row))]
    return "\n".join(found)


def _name(row: Row, again: bool) -> tuple[str, list[str]]:
    """What a row is called, and lines below it. again: whether it is another metric of the task above."""
    if again:
        return f"  {METRICS[row.metric]}", []
    if len(row.label) <= _LABEL or not row.unit:
        return row.label, []
    return row.name, [f"  {row.unit}"]


def _cells(row: Row) -> list[str]:
    chance = "" if row.chance is None else row.shown(row.chance)
    return [row.shown(row.value), row.shown_interval, chance, row.shown_items, row.reading]


def _columns(header: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of `WIDTH` columns: the first and the last to the left, the first cut where it must be."""
    widths = [max(len(line[column]) for line in [header, *cells]) for column in range(len(header))]
    widths[0] = min(widths[0], max(12, WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)))
    lines = []
    for first, *numbers, last in [header, *cells]:
        name = first if len(first) <= widths[0] else textwrap.shorten(first, widths[0], placeholder="…")
        middle = [cell.rjust(width) for cell, width in zip(numbers, widths[1:-1], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *middle, last]).rstrip())
    return lines


def _published(row: Row) -> list[str]:
    """Published scores by the same protocol, the closest first."""
    if not row.published:
        return []
    near = sorted(row.published.items(), key=lambda entry: abs(entry[1] - row.value))
    text = " · ".join(f"{model} {row.shown(value)}" for model, value in near)
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent="  publicados: ",
        subsequent_indent="    ",
        max_lines=2,
        placeholder=" …",
        break_long_words=False,
    )


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")


def _paint(text: str, code: str, color: bool) -> str:
    return f"{code}{text}{_END}" if color and code else text
