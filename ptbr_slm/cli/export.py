"""`ptbr-slm export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report, human_bytes, number
from ptbr_slm.cli.parity_table import parity_table


class Target(StrEnum):
    """Where the export will run."""

    CPU = "cpu"


class Precision(StrEnum):
    """How weights are stored."""

    FP32 = "fp32"
    INT8 = "int8"
    INT4 = "int4"


class Format(StrEnum):
    """The kind of file."""

    ONNX = "onnx"


def register(app: typer.Typer) -> None:
    """Add `export` to the application."""
    command(app, "export")(export)


def export(
    out: Output,
    model: Annotated[Path, typer.Argument(metavar="MODELO", help="Pasta de modelo, como RUN/final.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PASTA", help="Onde gravar o export.")],
    target: Annotated[Target, typer.Option(help="Onde o export vai rodar.")] = Target.CPU,
    precision: Annotated[
        Precision, typer.Option(help="Como os pesos são guardados; int4 é o menor e mais rápido.")
    ] = Precision.INT8,
    file_format: Annotated[Format, typer.Option("--format", help="O formato do arquivo.")] = Format.ONNX,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DADOS", help="Dados preparados para medir bits por byte na parte de validação."
        ),
    ] = None,
) -> Report:
    """Converte um modelo para ONNX com cache KV e só o aceita se responder como o PyTorch."""
    from ptbr_slm_export import export_model

    report = export_model(
        model, output, precision=precision.value, held_out=data, on_step=lambda step: out.note(f"{step}...")
    )
    parity = report.verification
    assert parity is not None
    body = {
        "folder": str(report.folder),
        "target": target.value,
        "format": file_format.value,
        "precision": report.precision,
        "bytes": report.bytes,
        "source_sha256": report.source_sha256,
        "seconds": round(report.seconds, 3),
        "parity": parity.as_dict(),
    }
    text = (
        f"{parity_table(parity)}\n\n"
        f"Export {report.precision} gravado em {report.folder}: {human_bytes(report.bytes)}, "
        f"feito e verificado em {number(report.seconds, 1)} s\n\n"
        f'Próximo passo:\n  ptbr-slm generate -m {report.folder} "O Brasil é"'
    )
    return Report(body, text, brief=str(report.folder))
