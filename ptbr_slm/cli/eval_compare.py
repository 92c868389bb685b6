"""`ptbr-slm eval compare A B`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report

members = typer.Typer(rich_markup_mode=None)
"""What `ptbr-slm eval` has beside its own arguments."""


@command(members, "compare")
def compare(
    out: Output,
    a: Annotated[Path, typer.Argument(metavar="A", help="Resultados de um modelo (ptbr-slm eval -o A).")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Resultados do outro, com os mesmos itens.")],
) -> Report:
    """Diz qual de dois modelos é melhor, em quê, e o que pode ser acaso."""
    from ptbr_slm.eval.results import read_results

    first, second = read_results(a), read_results(b)
    return Report({"a": first.model.name, "b": second.model.name})
