"""`ptbr-slm eval`."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.eval_compare import members
from ptbr_slm.cli.output import Output, Report
from ptbr_slm.errors import SlmError
from ptbr_slm.text import number

if TYPE_CHECKING:
    from ptbr_slm.eval.results import Results


def register(app: typer.Typer) -> None:
    """Add `eval` to the application."""
    command(app, "eval", members)(evaluate)


def evaluate(
    out: Output,
    model: Annotated[
        Path | None,
        typer.Argument(metavar="MODELO", help="Checkpoint, pasta de modelo ou de treino, ou export."),
    ] = None,
    tasks: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help="Tarefas, rótulos ou arquivos .yaml; padrão: gramatica e as tarefas cujos dados estão aqui.",
        ),
    ] = "",
    task_data: Annotated[
        list[Path] | None,
        typer.Option(metavar="PASTA", help="Onde estão os arquivos das tarefas; pode repetir."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PASTA", help="Onde gravar; padrão: avaliacao/NOME."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Só N itens de cada tarefa, sorteados.")
    ] = None,
    list_tasks: Annotated[
        bool, typer.Option("--list", help="Mostra as tarefas que existem, e não mede nada.")
    ] = False,
    accept_licence: Annotated[
        bool,
        typer.Option("--accept-licence", help="Seu uso não é comercial: inclui as tarefas que o pedem."),
    ] = False,
    time_budget: Annotated[
        str, typer.Option(metavar="10m", help="Para quando o tempo acabar; o que foi feito é uma amostra.")
    ] = "",
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Pergunta tudo de novo, e não guarda as respostas.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu ou cuda.")] = "auto",
) -> Report:
    """Mede o que um modelo sabe: gramática e tarefas em português, com chance e intervalo."""
    folders = task_data or []
    if list_tasks:
        return _listed(folders)
    if model is None:
        raise SlmError(
            "E_USAGE",
            "falta o modelo a avaliar.",
            where="MODELO",
            hint="Exemplo:  ptbr-slm eval runs/meu/final    (as tarefas:  ptbr-slm eval --list)",
        )
    from ptbr_slm.data.sources.hub_inputs import DownloadOptions
    from ptbr_slm.eval.answers import answers_root
    from ptbr_slm.eval.benchmark import select_benchmarks
    from ptbr_slm.eval.evaluation import Progress, Settings
    from ptbr_slm.eval.evaluation import evaluate as measure
    from ptbr_slm.eval.report.folder import write_report
    from ptbr_slm.eval.report.table import table
    from ptbr_slm.eval.subject import LocalSubject

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    download = DownloadOptions(note=out.note)
    benchmarks = select_benchmarks(names, folders, accept_licence=accept_licence, download=download)
    settings = Settings(limit, _seconds(time_budget), None if no_cache else answers_root())
    with LocalSubject(_model_folder(model), device) as subject, out.progress("avaliando", 1.0) as bar:

        def show(progress: Progress) -> None:
            speed = f" · {number(progress.asked_per_second, 1)} itens/s" if progress.asked_per_second else ""
            bar.update(progress.done / max(1, progress.of), f"{progress.title}{speed}")

        try:
            evaluation = measure(subject, benchmarks, settings, show)
        except KeyboardInterrupt:
            if not no_cache:
                out.note("O que já foi respondido ficou guardado: repita o comando para continuar.")
            raise
    if evaluation.unkept is not None:
        out.note(f"Atenção: as respostas não puderam ser guardadas ({evaluation.unkept.message})")
    results = evaluation.results
    folder = output or Path("avaliacao", re.sub(r"[^\w.-]+", "-", results.model.name).strip("-.") or "modelo")
    write_report(folder, results)
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    text = f"{table(results, color=color)}\n\nGravado em {folder}: avaliacao.html, resultados.json, cartao.md"
    return Report(_as_dict(results, folder), text, brief=str(folder))


def _listed(folders: list[Path]) -> Report:
    from ptbr_slm.eval.tasks.listing import as_data, as_text, task_table

    entries = task_table(folders)
    return Report({"tasks": as_data(entries)}, as_text(entries), "\n".join(entry.name for entry in entries))


def _model_folder(path: Path) -> Path:
    """The model of a run's folder, or what was given."""
    final = path / "final"
    return final if not (path / "config.json").exists() and (final / "config.json").exists() else path


def _seconds(text: str) -> float | None:
    """Of a time such as 10m; None without one. Raises E_USAGE."""
    if not text:
        return None
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    if not (total := 3600 * hours + 60 * minutes + seconds):
        raise SlmError(
            "E_USAGE",
            f"não é uma duração: {text!r}.",
            where="--time-budget",
            hint="Exemplos:  --time-budget 10m  --time-budget 90s  --time-budget 1h30m",
        )
    return float(total)


def _as_dict(results: Results, folder: Path) -> dict[str, Any]:
    return {
        "model": results.model.name,
        "output": str(folder),
        "bits_per_byte": {record.name: record.value for record in results.bits},
        "tasks": [
            {
                "task": record.name,
                "version": record.version,
                "items": len(record.items),
                "of": record.of,
                "scores": {score.metric: score.value for score in record.scores},
            }
            for record in results.tasks
        ],
        "seconds": round(results.seconds, 3),
    }
