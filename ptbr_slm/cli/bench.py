"""`ptbr-slm bench`: how fast this machine is, measured, beside what was calculated."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptbr_slm.cli.command import command, verb_group
from ptbr_slm.cli.output import Output, Report, table
from ptbr_slm.errors import Exit, SlmError

if TYPE_CHECKING:
    from ptbr_slm.bench.generate import GenerateBench, GenerateOptions
    from ptbr_slm.bench.gpu.page import Block


def register(app: typer.Typer) -> None:
    """Add `bench` to the application."""
    bench = verb_group("Mede a velocidade e a memória desta máquina.")
    command(
        bench,
        "train",
        examples={
            "ptbr-slm bench train": "Os tamanhos que convêm a esta máquina",
            "ptbr-slm bench train --sizes nano --minutes 1 --no-variants": "Uma medida rápida",
        },
    )(train)
    command(
        bench,
        "generate",
        examples={
            "ptbr-slm bench generate -m runs/meu/export": "Um export",
            "ptbr-slm bench generate --size 85m --precision int8": "Um tamanho, com pesos sorteados",
        },
    )(generate)
    command(
        bench,
        "gpu",
        examples={
            "ptbr-slm bench gpu -o gpu-check": "Tudo, numa máquina com GPU",
            "ptbr-slm bench gpu --smoke": "Um ensaio, com ou sem GPU",
        },
    )(gpu)
    app.add_typer(bench, name="bench")


def train(
    out: Output,
    sizes: Annotated[
        str | None,
        typer.Option(
            "--sizes",
            metavar="A,B",
            help="Tamanhos, separados por vírgula; sem isto, 85m,400m,800m na GPU e nano,mini na CPU.",
        ),
    ] = None,
    minutes: Annotated[
        float, typer.Option("--minutes", help="Tempo total, mais ou menos; o que não couber fica anotado.")
    ] = 5.0,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="PASTA", help="Grava a tabela em Markdown e JSON nesta pasta."
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", help="Onde medir.")] = "auto",
    seq_len: Annotated[
        int | None, typer.Option("--seq-len", help="Tokens por sequência: 1024 numa GPU, 256 no processador.")
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", help="Segundos medidos em cada caso, fora o preparo.")
    ] = 8.0,
    variants: Annotated[
        bool,
        typer.Option(
            "--variants/--no-variants", help="Compara também otimizadores, recálculo, perda e compile."
        ),
    ] = True,
) -> Report:
    """Mede o treino: tokens/s, MFU e pico de memória.

    São passos de verdade, ao lado do que foi calculado.
    """
    from ptbr_slm.bench import train_report as report
    from ptbr_slm.bench.machine import about
    from ptbr_slm.bench.train import bench_train

    names = [name.strip() for name in sizes.split(",") if name.strip()] if sizes else None
    with out.progress("medindo", total=1.0) as bar:
        bench = bench_train(
            names,
            minutes=minutes,
            device=device,
            seq_len=seq_len,
            seconds=seconds,
            variants=variants,
            progress=lambda done, all_of_them, case: bar.update(
                done / all_of_them, f"{case.size}, {case.label} ({done + 1} de {all_of_them})"
            ),
        )
    parts = [about(bench.machine), table(report.rows(bench.results), header=report.HEADER)]
    failed = [result for result in bench.results if result.status != "ok"]
    if failed:
        parts.append("\n".join(f"{r.case.size}, {r.case.label}: {report.explanation(r)}" for r in failed))
    parts.append("\n".join(report.NOTES))
    brief = ""
    if folder is not None:
        page, body = report.write(bench, folder)
        parts.append(f"Gravado em {page} e {body}.")
        brief = str(page)
    return Report(bench.to_json(), "\n\n".join(parts), brief=brief)


def generate(
    out: Output,
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", metavar="EXPORT", help="Pasta de um export, ou de um modelo."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", metavar="OUTRO", help="Outro export, medido em alternância.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="TAMANHO",
            help="Sem modelo: sorteia um deste tamanho (85m, 400m, ...) e o exporta.",
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option("--precision", metavar="fp32|int8|int4", help="Do modelo sorteado com --size.")
    ] = "int4",
    batch: Annotated[
        str, typer.Option("--batch", metavar="A,B", help="Textos escritos ao mesmo tempo.")
    ] = "1,4,16",
    prompt: Annotated[str, typer.Option("--prompt", metavar="A,B", help="Tokens do texto inicial.")] = "256",
    decode: Annotated[
        int, typer.Option("--decode", metavar="N", help="Tokens escritos em cada repetição.")
    ] = 64,
    rounds: Annotated[int, typer.Option("--rounds", help="Repetições, fora a de aquecimento.")] = 5,
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", help="Onde medir.")] = "auto",
    cold: Annotated[
        bool, typer.Option("--cold/--no-cold", help="Mede do início do processo ao primeiro texto.")
    ] = True,
    peer: Annotated[
        Path | None,
        typer.Option(
            "--peer-transformers",
            metavar="MODELO",
            help="Mede também esta pasta de modelo no transformers (cache estático; na GPU, compilado).",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="PASTA", help="Grava tabela, JSON e gráfico (SVG) nesta pasta."
        ),
    ] = None,
) -> Report:
    """Mede a geração: tokens/s, primeiro token e memória.

    Leitura e escrita à parte, e quanto da banda da memória a escrita usa.
    """
    from ptbr_slm.bench import generate_report as report
    from ptbr_slm.bench.generate import GenerateOptions
    from ptbr_slm.bench.machine import about

    if (model is None) == (size is None):
        raise SlmError(
            "E_USAGE",
            "diga o que medir: um export (-m) ou um tamanho (--size), um dos dois.",
            where="-m, --size",
            hint="Por exemplo:  ptbr-slm bench generate --size 85m --precision int4",
        )
    options = GenerateOptions(
        batches=_numbers(batch, "--batch"),
        prompts=_numbers(prompt, "--prompt"),
        decode=decode,
        rounds=rounds,
        device=device,
        cold=cold,
    )
    with tempfile.TemporaryDirectory(prefix="ptbr-slm-bench-") as scratch:
        if model is None:
            assert size is not None
            model = _random_export(out, size, precision, Path(scratch))
        models = [(f"{size} {precision}" if size else model.resolve().name, model)]
        if against is not None:
            name = against.resolve().name
            models.append((name if name != models[0][0] else str(against), against))
        bench = _bench(out, models, options, peer)
    parts = [about(bench.machine), table(report.rows(bench), header=report.HEADER)]
    parts += ["\n".join(report.remarks(bench)), "\n".join(report.NOTES)]
    brief = ""
    if folder is not None:
        page, body, drawing = report.write(bench, folder)
        parts.append(f"Gravado em {page}, {body} e {drawing}.")
        brief = str(page)
    return Report(bench.to_json(), "\n\n".join(parts), brief=brief)


def gpu(
    out: Output,
    folder: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="PASTA", help="Grava gpu.md e gpu.json nesta pasta."),
    ] = Path("gpu-check"),
    minutes: Annotated[
        float, typer.Option("--minutes", help="Tempo total, no máximo; o que não couber fica anotado.")
    ] = 10.0,
    sections: Annotated[
        str | None,
        typer.Option(
            "--sections",
            metavar="A,B",
            help="Só estas: machine, gemm, amp, memory, speed, ranks, onnx, graphs, tests.",
        ),
    ] = None,
    smoke: Annotated[
        bool,
        typer.Option("--smoke", help="Encolhe tudo, para experimentar o comando; serve sem GPU também."),
    ] = False,
    wheels: Annotated[
        Path | None,
        typer.Option(
            "--wheels",
            metavar="PASTA",
            help="Wheels à mão (onnxruntime-gpu, ...), inteiros ou em pedaços; nada é instalado.",
        ),
    ] = None,
) -> Report:
    """Confere em dez minutos o que só uma GPU pode dizer.

    fp16, memória, velocidade, exports e testes.
    """
    from ptbr_slm.bench.gpu import page
    from ptbr_slm.bench.gpu.check import bench_gpu

    names = [name.strip() for name in sections.split(",") if name.strip()] if sections is not None else None
    if smoke:
        out.note(page.SMOKE)
    with out.progress("conferindo", total=1.0) as bar:
        check = bench_gpu(
            minutes=minutes,
            sections=names,
            smoke=smoke,
            wheels=wheels,
            exporter="ptbr_slm.cli.bench",
            after=lambda so_far: page.write(so_far, folder),
            progress=bar.update,
        )
    parts = [_terminal(block) for block in page.blocks(check)]
    failed = "".join(f"\n  {failure}" for failure in check.failures)
    parts.append(f"O que falhou:{failed}" if failed else "Nenhuma verificação falhou.")
    parts.append(f"Gravado em {folder / 'gpu.md'} e {folder / 'gpu.json'}.")
    code = Exit.ERROR if check.failures else Exit.OK
    return Report(check.to_json(), "\n\n".join(parts), brief=str(folder / "gpu.md"), exit_code=code)


def _terminal(block: Block) -> str:
    """A block of the page for a terminal."""
    if block.header:
        return table(block.rows, header=block.header)
    return block.text.upper() if block.level == 1 else f"== {block.text}" if block.level else block.text


def _bench(
    out: Output, models: list[tuple[str, Path]], options: GenerateOptions, peer: Path | None
) -> GenerateBench:
    from ptbr_slm.bench.generate import bench_generate

    with out.progress("medindo", total=1.0) as bar:
        return bench_generate(models, options, peer=peer, progress=bar.update)


def _random_export(out: Output, size: str, precision: str, scratch: Path) -> Path:
    """An export of a random model of a named size. Raises E_MODEL_SIZE, E_USAGE."""
    from ptbr_slm_export import export_model
    from ptbr_slm_export.targets import target_of

    from ptbr_slm.bench.synthetic import write_random_model
    from ptbr_slm.config import model_config

    config = model_config(size)
    chosen = target_of("cpu").precision(precision)
    out.note(f"sorteando um modelo {size} e exportando em {precision}...")
    write_random_model(scratch / "modelo", config)
    export_model(scratch / "modelo", scratch / "export", precision=chosen, verify=False)
    return scratch / "export"


def _numbers(text: str, option: str) -> tuple[int, ...]:
    """`1,4,16` -> numbers. Raises E_USAGE."""
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",") if part.strip()))
    except ValueError as error:
        raise SlmError(
            "E_USAGE",
            f"{option} pede números inteiros separados por vírgula, e não {text!r}.",
            where=option,
            hint=f"Por exemplo:  {option} 1,4,16",
        ) from error


def export_once(request: Mapping[str, Any]) -> dict[str, Any]:
    """Export one model for `bench gpu`, which runs this module in a process of its own.

    The benchmarks lie below the package that exports, and cannot import it. request: `model`, `output`,
    `target`, `precision` and `verify`. Returns `seconds`, `bytes` and `parity`, or `code` and `reason`
    (Portuguese) of what went wrong.
    """
    from ptbr_slm_export import export_model

    began = time.perf_counter()
    try:
        report = export_model(
            Path(request["model"]),
            Path(request["output"]),
            target=request["target"],
            precision=request["precision"],
            verify=request["verify"],
        )
    except SlmError as error:
        return {"code": error.code, "reason": error.message}
    except ModuleNotFoundError as error:
        return {"code": "E_DEPENDENCY", "reason": f"falta o pacote {error.name}"}
    return {
        "seconds": time.perf_counter() - began,
        "bytes": report.bytes,
        "parity": report.verification and report.verification.as_dict(),
    }


def main() -> None:
    """`python -m ptbr_slm.cli.bench REQUEST.json ANSWER.json`."""
    from ptbr_slm.storage.atomic import write_json

    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    write_json(Path(sys.argv[2]), export_once(request))


if __name__ == "__main__":
    main()
