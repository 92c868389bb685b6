"""What a model learns, and when: a run's checkpoints evaluated one after the other, as tables and curves.

    python benchmarks/evaluation_steps.py RUN --steps 100,200,400,800 --tasks inferbr --task-data PASTA \
        --svg docs/img/avaliacao-passos.svg

Answers are kept (`ptbr_slm.eval.answers`): killed, the same command goes on. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

from ptbr_slm.eval.answers import answers_root
from ptbr_slm.eval.benchmark import select_benchmarks
from ptbr_slm.eval.bits_sources import valid_text
from ptbr_slm.eval.evaluation import HeldOutTexts, Settings, evaluate
from ptbr_slm.eval.report.rows import Section, bits_cells, sections
from ptbr_slm.eval.results import Results
from ptbr_slm.eval.subject import LocalSubject
from ptbr_slm.text import number
from ptbr_slm.train.reporting.curves import Panel, draw, sheet

_TITLE = 38
"""Characters of a panel's title that do not meet its value."""


def main() -> None:
    """Evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", default="", help="comma-separated; all checkpoints without it")
    parser.add_argument("--data", type=Path, help="prepared data whose valid split is read")
    parser.add_argument("--tasks", default="")
    parser.add_argument("--task-data", type=Path, action="append", default=[])
    parser.add_argument("--limit", type=int)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--only", default="", help="regular expression: titles of the panels to draw")
    chosen = parser.parse_args()
    names = ["gramatica", "gramatica_norma", *filter(None, chosen.tasks.split(","))]
    benchmarks = select_benchmarks(names, chosen.task_data)
    texts = [] if chosen.data is None else [valid_text(chosen.data)]
    held_out = HeldOutTexts(texts, trained_on=chosen.data)
    found: dict[int, Results] = {}
    for step, folder in checkpoints(chosen.run, chosen.steps):
        with LocalSubject(folder, "cpu") as subject:
            settings = Settings(chosen.limit, None, answers_root())
            found[step] = evaluate(subject, benchmarks, settings, held_out=held_out).results
    print(tables(found, tokens_at(chosen.run)))
    if chosen.svg is not None:
        shown = [panel for panel in panels(found) if re.search(chosen.only, panel.title)]
        chosen.svg.write_text(sheet(draw(shown), columns=3), encoding="utf-8")


def checkpoints(run: Path, steps: str) -> list[tuple[int, Path]]:
    """(step, folder) of the checkpoints, and of final/."""
    found = {int(path.name.partition("-")[2]): path for path in (run / "checkpoints").glob("step-*")}
    wanted = [int(step) for step in steps.split(",")] if steps else sorted(found)
    return [(step, found[step]) for step in wanted]


def tokens_at(run: Path) -> dict[int, int]:
    """Step -> tokens trained on."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [record for record in map(json.loads, lines) if record["event"] == "step"]
    return {record["step"]: record["tokens"] for record in records}


def tables(found: dict[int, Results], tokens: dict[int, int]) -> str:
    """One column a checkpoint: bits per byte, then every score with its interval; grey in italics."""
    steps = list(found)
    head = ["", *(f"{number(step)} passos" for step in steps)]
    lines = [["tokens treinados", *(number(tokens[step]) for step in steps)]]
    for index, record in enumerate(found[steps[0]].bits):
        cells = [bits_cells(found[step].bits[index]) for step in steps]
        lines.append([f"bits por byte ({record.name})", *(f"{value} ({ends})" for value, ends, *_ in cells)])
    by_step = {step: sections(results) for step, results in found.items()}
    for index, section in enumerate(by_step[steps[0]]):
        lines.append([f"**{section.title}**", *[""] * len(steps)])
        for place, row in enumerate(section.rows):
            lines.append([row.label, *(_cell(by_step[step][index], place) for step in steps)])
    rule = [":--", *["--:"] * len(steps)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])


def _cell(section: Section, place: int) -> str:
    row = section.rows[place]
    text = f"{row.shown(row.value)} ({row.shown_interval})"
    return f"*{text}*" if row.reading else text


def panels(found: dict[int, Results]) -> Sequence[Panel]:
    """A curve for each text, task and phenomenon, chance dotted."""
    steps = list(found)
    drawn = []
    for index, record in enumerate(found[steps[0]].bits):
        points = [(float(step), found[step].bits[index].value) for step in steps]
        drawn.append(Panel(title=f"bits por byte, {record.name}", points=points, dots=True, decimals=3))
    by_step = {step: sections(results) for step, results in found.items()}
    for index, section in enumerate(by_step[steps[0]]):
        for place, row in enumerate(section.rows):
            if not row.is_share:
                continue
            points = [(float(step), 100 * by_step[step][index].rows[place].value) for step in steps]
            name = row.label if place else f"{section.title}: {row.label}"
            title = f"{name if len(name) <= _TITLE else name[: _TITLE - 1] + '…'} (%)"
            level = None if row.chance is None else 100 * row.chance
            drawn.append(Panel(title=title, points=points, dots=True, decimals=1, level=level))
    return drawn


if __name__ == "__main__":
    main()
