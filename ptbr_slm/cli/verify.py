"""`ptbr-slm verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report
from ptbr_slm.cli.parity_table import parity_table


def register(app: typer.Typer) -> None:
    """Add `verify` to the application."""
    command(app, "verify")(verify)


def verify(
    out: Output,
    export: Annotated[Path, typer.Argument(metavar="EXPORT", help="Pasta que o ptbr-slm export gravou.")],
    against: Annotated[
        Path, typer.Option("--against", metavar="MODELO", help="O modelo de que o export foi feito.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DADOS", help="Dados preparados para medir bits por byte na parte de validação."
        ),
    ] = None,
) -> Report:
    """Confere os arquivos de um export e se ele responde como o modelo no PyTorch."""
    from ptbr_slm_export import verify_export

    report = verify_export(export, against, held_out=data, on_step=lambda step: out.note(f"{step}..."))
    body = {"export": str(export), "model": str(against), **report.as_dict()}
    failure = report.failure(export)
    if failure is not None:
        out.note(parity_table(report))
        out.error(str(failure))
        return Report(body, exit_code=failure.exit_code)
    text = f"{parity_table(report)}\n\nO export confere com o modelo."
    return Report(body, text, brief="ok")
