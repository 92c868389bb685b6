"""`ptbr-slm data teacher-logits`: the predictions of a larger model, for `train --teacher-logits`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report
from ptbr_slm.text import human_bytes, number, quoted


def register_teacher_logits(group: typer.Typer) -> None:
    """Add `teacher-logits` to the group `data`."""
    examples = {"ptbr-slm data teacher-logits runs/grande/final dados -o previsoes": "As de um modelo maior"}
    command(group, "teacher-logits", examples=examples)(teacher_logits)


def teacher_logits(
    out: Output,
    teacher: Annotated[
        Path, typer.Argument(metavar="PROFESSOR", help="Pasta do modelo maior, com o tokenizador dos dados.")
    ],
    data: Annotated[Path, typer.Argument(metavar="DADOS", help="Pasta feita por data prepare.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PASTA", help="Onde gravar as previsões.")
    ],
    top_k: Annotated[
        int,
        typer.Option(
            "--top-k",
            metavar="K",
            help="Tokens mais prováveis que se guardam de cada previsão: 2 + 4 K bytes por token.",
        ),
    ] = 32,
    context: Annotated[
        int | None,
        typer.Option(
            "--context", metavar="N", help="Tokens que o professor lê por vez (padrão: o que ele suporta)."
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", min=1, help="Sequências que ele lê por vez.")
    ] = 8,
    device: Annotated[
        str, typer.Option("--device", metavar="auto|cpu|cuda", help="Onde o professor roda.")
    ] = "auto",
) -> Report:
    """Grava as previsões de um modelo maior, para ensinar outro.

    São o que ele espera depois de cada token dos dados; train --teacher-logits aprende delas. Interrompido,
    continua de onde parou quando o comando é repetido.
    """
    from ptbr_slm.data.prepared import PreparedData
    from ptbr_slm.train.teacher import write_teacher_logits

    total = PreparedData.open(data, verify=False).split("train").tokens
    with out.progress("o professor lê", total) as progress:
        found = write_teacher_logits(
            teacher,
            data,
            output,
            top_k=top_k,
            context=context,
            batch_size=batch_size,
            device=device,
            progress=lambda done: progress.update(done, f"{number(done)} tokens"),
        )
    facts = found.facts
    size = facts.tokens * facts.dtype.itemsize
    text = (
        f"Previsões de {facts.teacher} em {output}\n"
        f"  {number(facts.tokens)} tokens, {facts.dtype.itemsize} bytes cada: {human_bytes(size)}\n\n"
        f"Próximo passo:\n  ptbr-slm train --data {quoted(data)} --teacher-logits {quoted(output)} "
        "--output runs/aluno --model-size mini"
    )
    return Report({"folder": str(output), "bytes": size, **asdict(facts)}, text, brief=str(output))
