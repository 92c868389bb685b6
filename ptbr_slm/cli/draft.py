"""`ptbr-slm draft`: a layer that guesses ahead, for a model that is finished."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report
from ptbr_slm.text import number, quoted


def register(app: typer.Typer) -> None:
    """Add `draft` to the application."""
    examples = {"ptbr-slm draft runs/meu/final --data dados": "Com os dados em que o modelo foi treinado"}
    command(app, "draft", examples=examples)(draft)


def draft(
    out: Output,
    model: Annotated[Path, typer.Argument(metavar="MODELO", help="Pasta do modelo pronto (RUN/final).")],
    data: Annotated[
        Path, typer.Option(metavar="DADOS", help="Pasta de ptbr-slm data prepare; ou textos: .txt, JSONL...")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PASTA", help="Onde gravar a camada. [padrão: MODELO/draft]"),
    ] = None,
    minutes: Annotated[float, typer.Option(metavar="MINUTOS", help="Tempo de treino.")] = 5.0,
    max_steps: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Passos de 4.096 tokens, em vez do tempo: repetível."),
    ] = None,
    head_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Quantos dos tokens mais comuns ela sabe adivinhar. [padrão: 90 % dos dados, até 4096]",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Semente dos pesos e da ordem.")] = 0,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Onde treinar.")] = "auto",
) -> Report:
    """Treina uma camada de rascunho: o modelo gera mais rápido.

    A cada passo ela adivinha o token depois do próximo, e o modelo confere os dois de uma vez: o texto é o
    que ele geraria sem ela. O export para CPU a leva junto, e só a usa onde compensa.
    """
    from ptbr_slm.errors import SlmError
    from ptbr_slm.storage.draft_folder import FOLDER
    from ptbr_slm.tune.draft import DraftSettings, train_draft

    if not 0 < minutes <= 24 * 60:
        raise SlmError(
            "E_USAGE",
            f"o treino não pode durar {minutes:g} minutos.",
            where="--minutes",
            hint="Exemplo: --minutes 5",
        )
    folder = output or model / FOLDER
    settings = DraftSettings(
        minutes=minutes, max_steps=max_steps, head_tokens=head_tokens, seed=seed, device=device
    )
    with out.progress("treinando a camada de rascunho", total=1.0) as bar:
        report = train_draft(model, data, folder, settings, progress=bar.update)
    elsewhere = "" if output is None else f" --draft {quoted(folder)}"
    text = (
        f"Camada de rascunho em {folder}: {number(report.parameters)} parâmetros, {number(report.steps)} "
        f"passos em {number(report.seconds)} s\n"
        f"  {number(100 * report.acceptance, 1)} % dos palpites certos, de {number(report.held_out)} "
        "em texto que ela não viu\n"
        f"  adivinha {number(report.head_tokens)} tokens, que são {number(100 * report.coverage, 1)} % dos "
        "dados\n\n"
        f"Próximo passo:\n  ptbr-slm export {quoted(model)} -o {quoted(model.parent / 'export')} "
        f"--precision int4{elsewhere}"
    )
    body = {**asdict(report), "folder": str(folder)}
    return Report(body, text, brief=str(folder))
