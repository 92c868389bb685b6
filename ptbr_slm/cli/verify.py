"""`ptbr-slm verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report, table
from ptbr_slm.text import number

if TYPE_CHECKING:
    from ptbr_slm_export import VerifyReport
    from ptbr_slm_export.verification.checks import Check


def register(app: typer.Typer) -> None:
    """Add `verify` to the application."""
    examples = {"ptbr-slm verify runs/meu/export --against runs/meu/final": "Um export e o seu modelo"}
    command(app, "verify", examples=examples)(verify)


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
    draft: Annotated[
        Path | None,
        typer.Option(metavar="PASTA", help="A camada de rascunho do export, se não está em MODELO/draft."),
    ] = None,
) -> Report:
    """Confere se um export responde como o modelo no PyTorch.

    Antes, confere os arquivos dele pelo sha256.
    """
    from ptbr_slm_export import verify_export

    report = verify_export(
        export, against, held_out=data, draft=draft, on_step=lambda step: out.note(f"{step}...")
    )
    body = {"export": str(export), "model": str(against), **report.as_dict()}
    failure = report.failure(export)
    if failure is not None:
        out.note(parity_table(report))
        out.error(str(failure))
        return Report(body, exit_code=failure.exit_code)
    text = f"{parity_table(report)}\n\nO export confere com o modelo."
    return Report(body, text, brief="ok")


def parity_table(report: VerifyReport) -> str:
    """One line a check, then the bits per byte and the text they were measured on."""
    rows = [
        [
            check.label,
            _figure(check, check.value),
            _figure(check, check.limit),
            "ok" if check.passed else "FALHOU",
        ]
        for check in report.checks
    ]
    bits = (
        f"bits por byte: {number(report.bits_per_byte, 4)} no ONNX {report.precision}, "
        f"{number(report.reference_bits_per_byte, 4)} no PyTorch\n"
        f"  medidos em {number(report.text.counted)} tokens de: {report.text.name}"
    )
    if report.stand_in:
        bits += (
            "\n  respondido pelo processador, pois aqui não há a GPU deste export: as contas conferem;"
            "\n  o código da GPU e a velocidade, só nela: rode lá o ptbr-slm verify"
        )
    return f"{table(rows, header=['comparação com o PyTorch', 'medido', 'limite', ''])}\n\n{bits}"


def _figure(check: Check, value: float) -> str:
    if check.name == "bits_per_byte":
        return f"{number(100 * value, 3)} %"
    if check.name in ("cosine", "draft"):
        return number(value, 4)
    return number(value) if check.name == "greedy" else f"{value:.2g}".replace(".", ",")
