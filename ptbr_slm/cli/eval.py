"""`ptbr-slm eval`."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.eval_compare import default_folder, members, model_of
from ptbr_slm.cli.output import Output, Report
from ptbr_slm.cli.terminal import wants_colour
from ptbr_slm.errors import SlmError
from ptbr_slm.text import number, parse_duration

if TYPE_CHECKING:
    from ptbr_slm.eval.evaluation import HeldOutTexts
    from ptbr_slm.eval.results import Results


def register(app: typer.Typer) -> None:
    """Add `eval` to the application."""
    examples = {
        "ptbr-slm eval runs/meu/final": "Bits por byte, gramática e o que houver de tarefas",
        "ptbr-slm eval runs/meu/export --tasks gramatica --limit 200": "Só a gramática, numa amostra",
        "ptbr-slm eval --list": "As tarefas que existem",
    }
    command(app, "eval", examples=examples, members=members)(evaluate)


def evaluate(
    out: Output,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODELO", help="Checkpoint, pasta de modelo ou de treino, export, ou URL de um servidor."
        ),
    ] = "",
    data: Annotated[
        Path | None,
        typer.Option(metavar="PASTA", help="Dados preparados; padrão: os do treino do modelo."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="[NOME=]CAMINHO", help="Texto para medir bits por byte; pode repetir."),
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
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Onde executar.")] = "auto",
) -> Report:
    """Mede um modelo: bits por byte, gramática e tarefas em português.

    Cada figura vem com a do acaso e o intervalo de confiança.
    """
    folders = task_data or []
    if list_tasks:
        return _listed(folders)
    if not model:
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
    from ptbr_slm.eval.server_subject import open_subject

    settings = Settings(limit, _seconds(time_budget), None if no_cache else answers_root())
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    download = DownloadOptions(note=out.note)
    benchmarks = select_benchmarks(names, folders, accept_licence=accept_licence, download=download)
    target = model_of(model)
    held_out = _held_out(target, data, text or [], quietly=bool(names))
    with open_subject(target, device) as subject, out.progress("avaliando", 1.0) as bar:

        def show(progress: Progress) -> None:
            rate = progress.asked_per_second
            bar.update(progress.share, progress.title + (f" · {number(rate, 1)} itens/s" if rate else ""))

        try:
            evaluation = measure(subject, benchmarks, settings, show, held_out=held_out)
        except KeyboardInterrupt:
            if not no_cache:
                out.note("O que já foi respondido ficou guardado: repita o comando para continuar.")
            raise
    if evaluation.unkept is not None:
        out.note(f"Atenção: as respostas não puderam ser guardadas ({evaluation.unkept.message})")
    results = evaluation.results
    folder = output or default_folder(results.model.name)
    write_report(folder, results)
    where = f"Gravado em {folder}: avaliacao.html, resultados.json, cartao.md"
    return Report(
        _as_dict(results, folder),
        f"{table(results, color=wants_colour(sys.stdout))}\n\n{where}",
        brief=str(folder),
    )


def _held_out(model: str, data: Path | None, texts: list[str], *, quietly: bool) -> HeldOutTexts:
    """The texts asked for, else the held-out part of the training's data, else the package's own text.

    quietly: whether other things were asked for, so that there is none by default.
    """
    from ptbr_slm.eval.bits_measure import WINDOW
    from ptbr_slm.eval.bits_sources import built_in_text, named_text, valid_text
    from ptbr_slm.eval.evaluation import HeldOutTexts
    from ptbr_slm.eval.held_out import RunSettings, run_settings
    from ptbr_slm.eval.server_subject import is_url

    run = RunSettings() if is_url(model) else run_settings(Path(model))
    trained_on = run.data if run.data is not None and run.data.exists() else data or run.data
    found = [named_text(argument) for argument in texts]
    if data is not None:
        found.insert(0, valid_text(data))
    elif not found and not quietly:
        with suppress(SlmError):  # moved, made anew, or without a held-out part
            if run.data is not None:
                found.append(valid_text(run.data))
        found = found or [built_in_text()]
    return HeldOutTexts(found, run.seq_len or WINDOW, trained_on)


def _listed(folders: list[Path]) -> Report:
    from ptbr_slm.eval.tasks.listing import as_data, as_text, task_table

    entries = task_table(folders)
    return Report({"tasks": as_data(entries)}, as_text(entries), "\n".join(entry.name for entry in entries))


def _seconds(text: str) -> int | None:
    """Of a time such as 10m; None without one. Raises E_USAGE."""
    if not text:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise SlmError(
            "E_USAGE",
            f"não é uma duração: {text!r}.",
            where="--time-budget",
            hint="Exemplos:  --time-budget 10m  --time-budget 90s  --time-budget 1h30m",
        ) from error


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
