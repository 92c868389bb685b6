"""`ptbr-slm export`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report, table
from ptbr_slm.cli.verify import parity_table
from ptbr_slm.errors import SlmError
from ptbr_slm.text import human_bytes, number, quoted

if TYPE_CHECKING:
    from ptbr_slm_export import ExportReport
    from ptbr_slm_export.measure import Measured

    from ptbr_slm.storage.model_folder import ModelFolder


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


class Head(StrEnum):
    """How the output head is stored."""

    INT8 = "int8"
    INT4 = "int4"
    INT4_RESCORED = "int4-rescored"


class Format(StrEnum):
    """The kind of file."""

    ONNX = "onnx"
    GGUF = "gguf"


def register(app: typer.Typer) -> None:
    """Add `export` to the application."""
    command(
        app,
        "export",
        examples={
            "ptbr-slm export runs/meu/final -o runs/meu/export": "Para a CPU, em int8",
            "ptbr-slm export runs/meu/final -o runs/meu/int4 --precision int4": "Menor, em int4",
            "ptbr-slm export runs/meu/final -o runs/meu/cuda --target cuda": "Para uma GPU, em fp16",
        },
    )(export)


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
    head: Annotated[
        Head | None,
        typer.Option(help="A camada de saída; int4-rescored, padrão do int4, recalcula os melhores logits."),
    ] = None,
    head_bits: Annotated[int | None, typer.Option(metavar="8|4", hidden=True)] = None,
    block: Annotated[
        int | None, typer.Option(metavar="N", help="Pesos que dividem uma escala: 16, 32, 64, 128 ou 256.")
    ] = None,
    fastest_here: Annotated[
        bool,
        typer.Option(
            "--fastest-here",
            help="Com int4: mede em 2 s que blocos e que saída são mais rápidos nesta máquina, e os usa.",
        ),
    ] = False,
    mixed: Annotated[
        float | None,
        typer.Option(metavar="FRAÇÃO", help="Com int4: quanto crescer para guardar em int8 o mais sensível."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="TEXTO|DADOS", help="O que o modelo lê para kquant e gptq pesarem os erros."),
    ] = None,
    file_format: Annotated[Format, typer.Option("--format", help="O formato do arquivo.")] = Format.ONNX,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DADOS", help="Dados preparados para medir bits por byte na parte de validação."
        ),
    ] = None,
    draft: Annotated[
        str | None,
        typer.Option(
            metavar="PASTA|none",
            help="A camada de rascunho que vai junto (ptbr-slm draft); none: nenhuma. [padrão: MODELO/draft]",
        ),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Experimenta também as outras precisões e mostra a diferença.")
    ] = False,
) -> Report:
    """Converte um modelo para ONNX e confere o resultado.

    O export tem cache KV, e só é aceito se responder como o PyTorch.
    """
    if head_bits is not None:
        head = _head_of(out, head_bits)
    changes = {"head": head and head.value, "block": block, "mixed_extra": mixed}
    if file_format is Format.GGUF:
        given = {
            f"--target {target.value}": target is not Target.CPU,
            f"--method {method and method.value}": method is not None,
            f"--head {head and head.value}": head is not None,
            f"--block {block}": block is not None,
            f"--mixed {mixed}": mixed is not None,
            f"--calibration {quoted(calibration or '')}": calibration is not None,
            f"--data {quoted(data or '')}": data is not None,
            f"--draft {quoted(draft or '')}": draft is not None,
            "--fastest-here": fastest_here,
            "--compare": compare,
        }
        _refuse_with_gguf(given)
        return _gguf(out, model, output, precision)
    if fastest_here and (head is not None or block is not None):
        raise SlmError(
            "E_USAGE",
            "--fastest-here escolhe os blocos e a saída, e um deles já foi dito.",
            where="--fastest-here",
            hint="Tire --block e --head, ou tire --fastest-here.",
        )
    from ptbr_slm_export import export_model
    from ptbr_slm_export.targets import target_of

    from ptbr_slm.storage.model_folder import ModelFolder

    place = target_of(target.value)
    chosen = place.precision(precision and precision.value)
    source = ModelFolder(model)
    report = export_model(
        source,
        output,
        target=target.value,
        precision=chosen,
        recipe=place.recipe_for(chosen, method and method.value, **changes),
        calibration=calibration,
        held_out=data,
        draft=True if draft is None else draft != "none" and Path(draft),
        fastest_here=fastest_here,
        on_step=lambda step: out.note(f"{step}..."),
    )
    rows = _measured(out, source, report, data, compare=compare)
    parity = report.verification
    body = {
        "folder": str(report.folder),
        "target": report.target,
        "format": file_format.value,
        "precision": report.precision,
        "method": report.recipe and report.recipe.method,
        "recipe": report.recipe and report.recipe.as_dict(),
        "fastest_here": report.here and report.here.as_dict(),
        "bytes": report.bytes,
        "tokens_per_second": next(r.tokens_per_second for r in rows if r.precision == report.precision),
        "source_sha256": report.source_sha256,
        "seconds": round(report.seconds, 3),
        "parity": parity and parity.as_dict(),
        "comparison": [row.as_dict() for row in rows] if compare else None,
    }
    checked = parity_table(parity) if parity else "Não conferido: este computador não roda este alvo."
    text = (
        f"{checked}\n\n"
        f"{measured_table(rows, report)}\n\n"
        f"Export {report.precision} gravado em {report.folder}: {human_bytes(report.bytes)}, "
        f"feito{' e verificado' if parity else ''} em {number(report.seconds, 1)} s\n\n"
        f"Próximo passo:\n  {_next_step(report.target, report.folder, source)}"
    )
    return Report(body, text, brief=str(report.folder))


def _head_of(out: Output, bits: int) -> Head:
    """What --head-bits, the earlier name of this option, asked for."""
    heads = {8: Head.INT8, 4: Head.INT4}
    if bits not in heads:
        raise SlmError(
            "E_USAGE",
            f"a saída tem 8 ou 4 bits, e não {bits}.",
            where=f"--head-bits {bits}",
            hint=f"Use --head {' ou --head '.join(Head)}.",
        )
    out.note(f"--head-bits {bits} agora é --head {heads[bits].value}")
    return heads[bits]


def _measured(
    out: Output, model: ModelFolder, report: ExportReport, data: Path | None, *, compare: bool
) -> list[Measured]:
    """What was made, measured, among the other precisions where they are asked for; in the target's order."""
    from ptbr_slm_export.measure import Measured, measure_precisions, runs_here, speed_of
    from ptbr_slm_export.targets import target_of

    out.note("medindo a velocidade...")
    parity = report.verification
    made = Measured(
        precision=report.precision,
        method=report.recipe.method if report.recipe else None,
        bytes=report.bytes,
        bits_per_byte=parity.bits_per_byte if parity else None,
        tokens_per_second=speed_of(report.folder, model, data) if runs_here(report.target) else None,
    )
    if not compare:
        return [made]
    others = measure_precisions(
        model,
        report.folder.resolve().parent,
        target=report.target,
        held_out=data,
        skip=report.precision,
        on_step=lambda step: out.note(f"{step}..."),
    )
    order = target_of(report.target).precisions
    return sorted([made, *others], key=lambda row: order.index(row.precision))


def measured_table(rows: Sequence[Measured], report: ExportReport) -> str:
    """Size, bits per byte and speed of each precision; the one that was kept is marked."""
    parity = report.verification
    reference = parity.reference_bits_per_byte if parity else None
    lines = [
        [
            row.precision + (f" ({row.method})" if row.method else ""),
            human_bytes(row.bytes),
            "–" if row.bits_per_byte is None else number(row.bits_per_byte, 4),
            "–" if not (row.bits_per_byte and reference) else _percent(row.bits_per_byte / reference - 1),
            "–" if row.tokens_per_second is None else number(row.tokens_per_second, 1),
            "gravado" if row.precision == report.precision else "",
        ]
        for row in rows
    ]
    header = ["precisão", "tamanho", "bits por byte", "mudança", "tokens/s", ""]
    if all(row.tokens_per_second is None for row in rows):
        elsewhere = "tokens/s não medidos: este alvo roda em outra máquina ou ferramenta"
        return f"{table(lines, header=header)}\n  {elsewhere}"
    return f"{table(lines, header=header)}\n  tokens/s medidos agora nesta máquina, um texto por vez"


def _percent(part: float) -> str:
    sign = "+" if part >= 0 else "-"
    return f"{sign}{number(abs(100 * part), 3)} %"


def _next_step(target: str, folder: Path, source: ModelFolder) -> str:
    """What to type, or to read, to use the export of this model."""
    if target == Target.GENAI:
        return f"abra {folder} no onnxruntime-genai; o programa está em docs/OUTRAS_FERRAMENTAS.md"
    if _answers(source):
        return f"ptbr-slm chat {quoted(folder)}"
    return f'ptbr-slm generate -m {quoted(folder)} "O Brasil é"'


def _answers(model: ModelFolder) -> bool:
    """Whether the model was tuned to answer."""
    from ptbr_slm.chat import ChatFormat
    from ptbr_slm.chat.tuned import is_tuned

    try:
        return is_tuned(model.config, ChatFormat.of(model))
    except SlmError:  # no template, or one that does not say what the assistant writes
        return False


def _refuse_with_gguf(given: dict[str, bool]) -> None:
    """What a GGUF has no use for is not left unread. given: option as typed -> whether it was."""
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
    from ptbr_slm_export.gguf.file import export_gguf

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
        f'Próximo passo:\n  llama-completion -m {quoted(report.file)} -no-cnv -p "O Brasil é" -n 64'
    )
    return Report(body, text, brief=str(report.file))
