"""The tasks of the package, and those that a user's names, tags and files mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.eval.tasks.task import Task
from ptbr_slm.eval.tasks.task_file import read_task

EVERYTHING = "todas"
"""The name that stands for every task that is no phenomenon of the grammar suite."""
PHENOMENA = "ptbr_grammar"
"""Tag of the grammar suite's phenomena as tasks, one each: for lm-evaluation-harness, and for one alone."""


def built_in_tasks() -> dict[str, Path]:
    """Names and files of the tasks that come with the package."""
    folder = Path(str(resources.files("ptbr_slm.eval.tasks").joinpath("definitions")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def task_files(folder: Path) -> list[Path]:
    """The files of a folder that are tasks: other YAML may lie beside the data."""
    found = []
    for path in sorted(folder.glob("*.yaml")):
        with os_errors(path):
            content = path.read_bytes()
        if re.search(rb"^task\s*:", content, re.MULTILINE):
            found.append(path)
    return found


def published_tasks() -> list[Task]:
    """The tasks of the package, but for the phenomena of the grammar suite."""
    return [task for task in map(read_task, built_in_tasks().values()) if PHENOMENA not in task.tags]


def select_tasks(
    names: Sequence[str],
    extra: Sequence[Path] = (),
    *,
    accept_licence: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> list[Task]:
    """The tasks of these names, tags or paths, in the order asked for, each once; `todas` is all there are.

    extra: folders with further task files. accept_licence: whether the user's use is one that licences
    without commercial use allow. Without it, such tasks are left out of tags, of which `note` is told.
    Raises E_LICENCE for one that is asked for by its name, E_TASK for a name that is none, and what
    `read_task` does.
    """
    files = dict(built_in_tasks())
    for folder in extra:
        files |= {path.stem: path for path in task_files(folder)}
    chosen: dict[str, Task] = {}
    tagged: dict[str, list[Task]] | None = None
    for name in names:
        if name in files or name.endswith((".yaml", ".yml")):
            task = read_task(files.get(name, Path(name)))
            if task.facts.non_commercial and not accept_licence:
                raise _not_accepted(task)
            chosen.setdefault(task.name, task)
            continue
        if tagged is None:
            tagged = {EVERYTHING: []}
            for task in map(read_task, files.values()):
                if PHENOMENA not in task.tags:
                    tagged[EVERYTHING].append(task)
                for tag in task.tags:
                    tagged.setdefault(tag, []).append(task)
        if name not in tagged:
            raise _unknown(name, [*files, *tagged])
        refused = [task for task in tagged[name] if task.facts.non_commercial and not accept_licence]
        if refused:
            listed = ", ".join(task.name for task in refused)
            note(f"{name}: sem {listed}, que não permitem uso comercial (--accept-licence as inclui).")
        for task in tagged[name]:
            if task not in refused:
                chosen.setdefault(task.name, task)
    return list(chosen.values())


def _not_accepted(task: Task) -> SlmError:
    return SlmError(
        "E_LICENCE",
        f"os dados de {task.name} não permitem uso comercial ({task.facts.licence}; {task.facts.source}).",
        where="--tasks",
        hint="Se o seu uso não é comercial, repita o comando com  --accept-licence",
    )


def _unknown(name: str, known: Sequence[str]) -> SlmError:
    close = get_close_matches(name, known, n=3)
    hint = f"Quis dizer {' ou '.join(close)}? " if close else ""
    return SlmError(
        "E_TASK",
        f"não existe a tarefa {name}.",
        where="--tasks",
        hint=f"{hint}Veja todas:  ptbr-slm eval --list",
    )
