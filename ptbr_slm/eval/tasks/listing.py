"""The tasks that can be asked for, as a table of 80 columns and as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from ptbr_slm.eval.tasks.catalogue import PHENOMENA, published_tasks, task_files
from ptbr_slm.eval.tasks.documents import is_here
from ptbr_slm.eval.tasks.task import Task
from ptbr_slm.eval.tasks.task_file import read_task
from ptbr_slm.text import number

GROUPS = {
    "pequenos": "separam modelos de menos de 1 bilhão de parâmetros",
    "exames": "abaixo de 1 bilhão ficam no acaso: saem em cinza, sem conclusão",
}
"""Tag -> what its tasks have in common."""
_WIDTH = 80
_FOOT = [
    *wrap(
        "Um rótulo (pequenos, exames, todas) vale por todas as suas tarefas. As marcadas com (NC) não "
        "permitem uso comercial, e pedem --accept-licence.",
        _WIDTH,
    ),
    *wrap(
        "gramatica e gramatica_norma são as metades da suíte de gramática; um só fenômeno tem o nome "
        f"{PHENOMENA}_NOME (docs/GRAMATICA.md).",
        _WIDTH,
    ),
]


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """A task as a list of tasks shows it."""

    name: str
    title: str
    tags: tuple[str, ...]
    items: int | None
    chance: float | None
    licence: str
    non_commercial: bool
    protocol: str
    source: str
    meaningful_from: int
    here: bool
    """Whether its data is on this machine."""


def task_table(folders: Sequence[Path] = ()) -> list[TaskEntry]:
    """The tasks of the package, and those of the task files in `folders`, where data is looked for too.

    The phenomena of the grammar suite are left out: there are many, and `gramatica` asks them at once.
    """
    own = [read_task(path) for folder in folders for path in task_files(folder)]
    return [_entry(task, folders) for task in [*published_tasks(), *own]]


def _entry(task: Task, folders: Sequence[Path]) -> TaskEntry:
    facts = task.facts
    return TaskEntry(
        task.name,
        facts.title or task.name,
        task.tags,
        facts.items,
        facts.chance,
        facts.licence,
        facts.non_commercial,
        facts.protocol,
        facts.source,
        facts.meaningful_from,
        is_here(task, folders),
    )


def as_data(entries: Sequence[TaskEntry]) -> list[dict[str, Any]]:
    """For JSON."""
    return [asdict(entry) for entry in entries]


def as_text(entries: Sequence[TaskEntry]) -> str:
    """For a terminal: a section for each tag, two or three lines a task."""
    lines: list[str] = []
    tags = list(dict.fromkeys([*GROUPS, *(tag for entry in entries for tag in entry.tags), ""]))
    for tag in tags:
        tagged = [entry for entry in entries if tag in entry.tags or (not tag and not entry.tags)]
        if not tagged:
            continue
        about = GROUPS.get(tag, "")
        lines += [*([""] if lines else []), f"{tag or 'outras'}{': ' if about else ''}{about}"]
        lines.append(f"  {'tarefa':<22}{'itens':>6}{'acaso':>8}  {'aqui':<6}licença")
        for entry in tagged:
            lines += _lines(entry)
    return "\n".join([*lines, "", *_FOOT])


def _lines(entry: TaskEntry) -> list[str]:
    items = "-" if entry.items is None else number(entry.items)
    chance = "-" if entry.chance is None else f"{number(100 * entry.chance)} %"
    here = "sim" if entry.here else ""
    start = f"  {entry.name:<22}{items:>6}{chance:>8}  {here:<6}"
    licence = wrap(entry.licence + (" (NC)" if entry.non_commercial else ""), _WIDTH - len(start))
    first, *rest = licence
    return [
        start + first,
        *(" " * len(start) + line for line in rest),
        *wrap(
            entry.protocol, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False
        ),
    ]
