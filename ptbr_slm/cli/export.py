"""`ptbr-slm export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report, human_bytes, number
from ptbr_slm.cli.parity_table import parity_table
from ptbr_slm.errors import SlmError


class Target(StrEnum):
    """Where the export will run."""

    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"
    GENAI = "genai"


class Precision(StrEnum):
    """How weights are stored."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"


class Method(StrEnum):
    """How int8 and int4 find their codes."""

    SEARCH = "search"
    RTN = "rtn"
    KQUANT = "kquant"
    HQQ = "hqq"
    GPTQ = "gptq"


class Format(StrEnum):
    """The kind of file."""

    ONNX = "onnx"
    GGUF = "gguf"


def register(app: typer.Typer) -> None:
    """Add `export` to the application."""
    command(app, "export")(export)


def export(
    out: Output,
    model: Annotated[Path, typer.Argument(metavar="MODELO", help="Pasta de modelo, como RUN/final.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PASTA", help="Onde gravar o export.")],
    target: Annotated[Target, typer.Option(help="Onde o export vai rodar.")] = Target.CPU,
    precision: Annotated[
        Precision | None,
        typer.Option(help="Como os pesos são guardados; sem isto, int8 na CPU e fp16 numa GPU."),
    ] = None,
    method: Annotated[
        Method | None, typer.Option(help="Como int8 e int4 arredondam; o padrão é o melhor medido.")
    ] = None,
    file_format: Annotated[Format, typer.Option("--format", help="O formato do arquivo.")] = Format.ONNX,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DADOS", help="Dados preparados para medir bits por byte na parte de validação."
        ),
    ] = None,
) -> Report:
    """Converte um modelo para ONNX com cache KV e só o aceita se responder como o PyTorch."""
    if file_format is Format.GGUF:
        _refuse_with_gguf(target, method, data)
        return _gguf(out, model, output, precision)
    from ptbr_slm_export import export_model

    report = export_model(
        model,
        output,
        target=target.value,
        precision=precision and precision.value,
        method=method and method.value,
        held_out=data,
        on_step=lambda step: out.note(f"{step}..."),
    )
    parity = report.verification
    body = {
        "folder": str(report.folder),
        "target": report.target,
        "format": file_format.value,
        "precision": report.precision,
        "method": report.recipe and report.recipe.method,
        "bytes": report.bytes,
        "source_sha256": report.source_sha256,
        "seconds": round(report.seconds, 3),
        "parity": parity and parity.as_dict(),
    }
    checked = parity_table(parity) if parity else "Não conferido: este computador não roda este alvo."
    text = (
        f"{checked}\n\n"
        f"Export {report.precision} gravado em {report.folder}: {human_bytes(report.bytes)}, "
        f"feito{' e verificado' if parity else ''} em {number(report.seconds, 1)} s\n\n"
        f'Próximo passo:\n  ptbr-slm generate -m {report.folder} "O Brasil é"'
    )
    return Report(body, text, brief=str(report.folder))


def _refuse_with_gguf(target: Target, method: Method | None, data: Path | None) -> None:
    """What a GGUF has no use for is not left unread."""
    given = {
        f"--target {target.value}": target is not Target.CPU,
        f"--method {method and method.value}": method is not None,
        f"--data {data}": data is not None,
    }
    for option, present in given.items():
        if present:
            raise SlmError(
                "E_USAGE",
                f"{option} não se aplica a um GGUF.",
                where="--format gguf",
                hint=f"Tire {option}, ou use --format onnx.",
            )


def _gguf(out: Output, model: Path, output: Path, precision: Precision | None) -> Report:
    """`--format gguf`: one file for llama.cpp."""
    from ptbr_slm_export.gguf import export_gguf

    report = export_gguf(
        model, output, precision and precision.value, on_step=lambda step: out.note(f"{step}...")
    )
    body = {
        "file": str(report.file),
        "format": Format.GGUF.value,
        "precision": report.precision,
        "kind": report.kind,
        "bytes": report.bytes,
        "source_sha256": report.source_sha256,
        "worst_row": report.worst_row,
        "seconds": round(report.seconds, 3),
    }
    text = (
        f"GGUF {report.kind} gravado em {report.file}: {human_bytes(report.bytes)}, em "
        f"{number(report.seconds, 1)} s; os pesos foram lidos de volta e conferem.\n\n"
        f'Próximo passo:\n  llama-cli -m {report.file} -no-cnv -p "O Brasil é" -n 64'
    )
    return Report(body, text, brief=str(report.file))
