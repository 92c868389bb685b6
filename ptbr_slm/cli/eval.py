"""`ptbr-slm eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.eval_compare import members
from ptbr_slm.cli.output import Output, Report, table
from ptbr_slm.errors import SlmError
from ptbr_slm.text import number

if TYPE_CHECKING:
    from ptbr_slm.eval.run import TaskResult


def register(app: typer.Typer) -> None:
    """Add `eval` to the application."""
    command(app, "eval", members)(evaluate)


def evaluate(
    out: Output,
    model: Annotated[
        Path, typer.Argument(metavar="MODELO", help="Checkpoint, pasta de modelo ou export a avaliar.")
    ],
    tasks: Annotated[str, typer.Option(metavar="A,B", help="Tarefas, rótulos ou arquivos .yaml.")] = "",
    task_data: Annotated[
        list[Path] | None,
        typer.Option(metavar="PASTA", help="Onde estão os arquivos das tarefas; pode ser repetida."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Só os primeiros N itens de cada tarefa.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu ou cuda.")] = "auto",
) -> Report:
    """Mede o que um modelo sabe: tarefas em português, com chance e intervalo."""
    from ptbr_slm.eval.run import run_task
    from ptbr_slm.eval.subject import LocalSubject
    from ptbr_slm.eval.tasks.documents import load_task_data
    from ptbr_slm.eval.tasks.task import select_tasks

    names = [name for name in tasks.split(",") if name]
    if not names:
        raise SlmError(
            "E_USAGE", "nenhuma tarefa foi pedida.", where="--tasks", hint="Exemplo:  --tasks inferbr"
        )
    chosen = [(task, load_task_data(task, task_data or [])) for task in select_tasks(names)]
    results = []
    with LocalSubject(model, device) as subject:
        for task, data in chosen:
            with out.progress(task.facts.title or task.name, len(data.rows)) as bar:
                results.append(
                    run_task(subject, task, data, limit=limit, on_item=lambda done, _: bar.update(done))
                )
        return Report({"model": str(model), "tasks": [_as_dict(r) for r in results]}, _table(results))


def _as_dict(result: TaskResult) -> dict[str, Any]:
    return {
        "task": result.task.name,
        "version": result.task.facts.version,
        "items": len(result.items),
        "of": result.of,
        "scores": {score.metric: score.value for score in result.scores},
    }


def _table(results: list[TaskResult]) -> str:
    rows = []
    for result in results:
        for score in result.scores:
            chance = result.task.facts.chance
            rows.append(
                [
                    result.task.facts.title or result.task.name,
                    score.metric,
                    number(100 * score.value, 1),
                    ""
                    if score.interval is None
                    else f"{number(100 * score.interval.low, 1)} a {number(100 * score.interval.high, 1)}",
                    "" if chance is None else number(100 * chance, 1),
                    number(len(result.items)),
                ]
            )
    return table(rows, header=["tarefa", "medida", "%", "intervalo de 95 %", "chance", "itens"])
