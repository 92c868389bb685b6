"""cartao.md: the lines of an evaluation for a model card, as the Hugging Face hub and people read them.

The header is `model-index` of the hub's model cards (huggingface.co/docs/hub/model-cards#evaluation-results).
It holds claims only: a score at chance, or of a task that means nothing at the model's size, would be read as
one there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from ptbr_slm.eval.report.rows import READINGS, Section, bits_cells, sections, task_rows
from ptbr_slm.eval.results import Results
from ptbr_slm.version import __version__

_METRICS = {"acc": "accuracy", "acc_norm": "accuracy", "acc_bytes": "accuracy"}
"""Our names -> the hub's, where they differ."""


def card(results: Results) -> str:
    """The header between two lines of dashes, and a Portuguese section."""
    lines = ["---", "language: pt", "model-index:", f"- name: {_quoted(results.model.name)}", "  results:"]
    entries = [line for entry in _entries(results) for line in entry]
    if entries:
        lines += entries
    else:
        lines[-1] += " []"
    shown = sections(results)
    lines += ["---", "", "## Avaliação", ""]
    lines += [f"Medido com `ptbr-slm eval` {__version__}; intervalos de 95 %.", ""]
    if results.bits:
        lines += _table(
            ["texto", "bits por byte", "95 %", "documentos", "alvos"],
            [[record.name, *bits_cells(record)] for record in results.bits],
        )
    for section in shown:
        lines += _section(section)
    readings = sorted({row.reading for section in shown for row in section.rows if row.reading})
    lines += [f"- {name}: {READINGS[name]}" for name in readings]
    return "\n".join(lines).rstrip() + "\n"


def _section(section: Section) -> list[str]:
    cells = [
        [
            row.label,
            row.shown(row.value),
            row.shown_interval,
            "" if row.chance is None else row.shown(row.chance),
            row.shown_items,
            row.reading,
        ]
        for row in section.rows
    ]
    return _table([section.title, "%", "95 %", "acaso", "itens", ""], cells)


def _table(head: list[str], cells: list[list[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(head) - 1)]
    lines = [head, rule, *cells]
    return [*("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines), ""]


def _entries(results: Results) -> Iterator[list[str]]:
    for record in results.bits:
        yield _entry(record.name, record.source, "bits_per_byte", "bits por byte", record.value)
    for task in results.tasks:
        source = str(task.facts.get("source") or task.name)
        for row in task_rows(task, results.model.parameters):
            if not row.reading:
                value = 100 * row.value if row.is_share else row.value
                metric = _METRICS.get(row.metric, row.metric)
                yield _entry(task.title, source, metric, f"{row.metric} ({task.name})", value)


def _entry(dataset: str, source: str, metric: str, name: str, value: float) -> list[str]:
    return [
        "  - task:",
        "      type: text-generation",
        "    dataset:",
        f"      name: {_quoted(dataset)}",
        f"      type: {_quoted(source)}",
        "    metrics:",
        f"    - type: {metric}",
        f"      name: {_quoted(name)}",
        f"      value: {round(value, 4)}",
    ]


def _quoted(text: str) -> str:
    """A JSON string is a YAML one."""
    return json.dumps(text, ensure_ascii=False)
