"""`ptbr-slm bench`: how fast this machine is, measured, beside what was calculated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report, table


def register(app: typer.Typer) -> None:
    """Add `bench` to the application."""
    bench = typer.Typer(
        help="Mede a velocidade e a memória desta máquina.", no_args_is_help=True, rich_markup_mode=None
    )
    command(bench, "train")(train)
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
    device: Annotated[str, typer.Option("--device", help="auto, cpu ou cuda.")] = "auto",
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
    """Mede o treino de verdade: tokens/s, MFU e pico de memória, ao lado do que foi calculado."""
    from ptbr_slm.bench import tables
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
    parts = [tables.about(bench.machine), table(tables.rows(bench.results), header=tables.HEADER)]
    failed = [result for result in bench.results if result.status != "ok"]
    if failed:
        parts.append("\n".join(f"{r.case.size}, {r.case.label}: {tables.explanation(r)}" for r in failed))
    parts.append("\n".join(tables.NOTES))
    brief = ""
    if folder is not None:
        page, body = tables.write(bench, folder)
        parts.append(f"Gravado em {page} e {body}.")
        brief = str(page)
    return Report(bench.to_json(), "\n\n".join(parts), brief=brief)
