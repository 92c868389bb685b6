"""Completion of verbs and options by the shell's Tab key: `--install-completion` and `--show-completion`.

typer finds the candidates, and has the scripts of the shells; what it says while it installs them is English
and fixed, so that these two options are ours.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ptbr_slm.errors import SlmError

SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")
_NAME, _VARIABLE = "ptbr-slm", "_PTBR_SLM_COMPLETE"


def prepare() -> None:
    """Have typer answer the shell, where it is the shell that asks."""
    if _VARIABLE in os.environ:
        from typer._completion_classes import completion_init

        completion_init()


def _install(wanted: bool) -> None:
    if wanted:
        from typer._completion_shared import install

        shell, path = install(shell=_shell(), prog_name=_NAME, complete_var=_VARIABLE)
        typer.echo(
            f"Sugestões da tecla Tab instaladas para {shell}, em {path}\nAbra outro terminal para usá-las."
        )
        raise typer.Exit


def _show(wanted: bool) -> None:
    if wanted:
        from typer._completion_shared import get_completion_script

        typer.echo(get_completion_script(prog_name=_NAME, complete_var=_VARIABLE, shell=_shell()))
        raise typer.Exit


def _shell() -> str:
    """The shell that started us. Raises E_USAGE for none that can be completed in."""
    import shellingham

    try:
        name = str(shellingham.detect_shell()[0])
    except shellingham.ShellDetectionFailure:
        name = ""
    if name not in SHELLS:
        raise SlmError(
            "E_USAGE",
            f"não sei completar comandos no shell {name}." if name else "não descobri qual é o seu shell.",
            where="--install-completion",
            hint=f"Rode o comando de dentro de um destes: {', '.join(SHELLS)}.",
        )
    return name


Install = Annotated[
    bool,
    typer.Option(
        "--install-completion",
        callback=_install,
        is_eager=True,
        help="Faz a tecla Tab completar comandos e opções.",
        rich_help_panel="Geral",
    ),
]
Show = Annotated[
    bool,
    typer.Option(
        "--show-completion",
        callback=_show,
        is_eager=True,
        help="Mostra o que seria instalado, para copiar ou adaptar.",
        rich_help_panel="Geral",
    ),
]
