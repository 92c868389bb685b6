"""`ptbr-slm kaggle init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptbr_slm.cli.command import command, verb_group
from ptbr_slm.cli.output import Output, Report
from ptbr_slm.text import quoted

_group = verb_group("Prepara um caderno para treinar no Kaggle.")


def register(app: typer.Typer) -> None:
    """Add `kaggle` to the application."""
    app.add_typer(_group, name="kaggle")


@command(
    _group,
    "init",
    examples={"ptbr-slm kaggle init caderno --user maria": "Um caderno, na pasta caderno"},
)
def init(
    out: Output,
    folder: Annotated[Path, typer.Argument(metavar="PASTA", help="Onde gravar; a pasta pode já existir.")],
    user: Annotated[
        str,
        typer.Option(
            "--user", metavar="USUARIO", envvar="KAGGLE_USERNAME", help="Seu nome de usuário no Kaggle."
        ),
    ],
    title: Annotated[
        str, typer.Option("--title", help="Título do caderno; dele sai o endereço.")
    ] = "Treinar ptbr slm",
    wheels: Annotated[
        str | None,
        typer.Option(
            "--wheels",
            metavar="USUARIO/DATASET",
            help="Dataset com os pacotes (kaggle_setup.sh --make-wheels); desliga a internet.",
        ),
    ] = None,
    datasets: Annotated[
        list[str] | None,
        typer.Option("--dataset", metavar="USUARIO/DATASET", help="Dataset com textos seus; pode repetir."),
    ] = None,
    continue_from: Annotated[
        list[str] | None,
        typer.Option(
            "--continue-from",
            metavar="USUARIO/CADERNO",
            help="Caderno cuja última saída se quer continuar (o próprio, da segunda sessão em diante).",
        ),
    ] = None,
) -> Report:
    """Grava um caderno do Kaggle e mostra o comando que o envia.

    O caderno usa GPU T4 x2; ao lado dele ficam conversas de exemplo.
    """
    from ptbr_slm.kaggle.project import CONVERSATIONS, METADATA, NOTEBOOK, KaggleProject, write_project

    project = KaggleProject(
        user=user,
        title=title,
        internet=wheels is None,
        datasets=(*(datasets or ()), *([wheels] if wheels else ())),
        notebooks=tuple(continue_from or ()),
    )
    write_project(folder, project)
    push = f"kaggle kernels push -p {quoted(folder)}"
    internet = "ligada" if project.internet else "desligada"
    lines = [
        f"Caderno em {folder / NOTEBOOK}, com GPU T4 x2 e internet {internet}.",
        "As escolhas (tamanho, textos, passos) estão na primeira célula de código dele.",
        f"Exemplos de conversas em {folder / CONVERSATIONS}: ponha as suas nessa forma num Dataset.",
        "",
        "Próximo passo:",
        f"  {push}",
        f"  kaggle kernels status {project.identifier}",
        f"  kaggle kernels output {project.identifier} -p saida",
    ]
    if project.identifier not in project.notebooks:
        lines += [
            "",
            f"Para continuar noutra sessão, ponha em {folder / METADATA} e repita o push:",
            f'  "kernel_sources": ["{project.identifier}"]',
        ]
    data = {
        "folder": str(folder),
        "notebook": str(folder / NOTEBOOK),
        "metadata": project.metadata(),
        "push": push,
    }
    return Report(data, "\n".join(lines), brief=push)
