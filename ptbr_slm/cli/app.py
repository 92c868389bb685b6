"""`ptbr-slm app`: the page on this machine, or behind a share link."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Mode, Output, Report
from ptbr_slm.demo import INTRODUCTION, MACHADO

if TYPE_CHECKING:
    from ptbr_slm.app.launch import Served


def register(app: typer.Typer) -> None:
    """Add `app` to the application."""

    @command(
        app,
        "app",
        examples={
            "ptbr-slm app": "A página, com o modelo de demonstração",
            "ptbr-slm app runs/meu/export": "Com um modelo seu",
            "ptbr-slm app runs/meu/export --share": "Com um link público, com senha",
        },
    )
    def page(
        out: Output,
        models: Annotated[
            list[Path] | None,
            typer.Argument(
                metavar="MODELO",
                help="Pasta de um modelo ou de um modelo exportado; sem ela, o de demonstração (machado); "
                "com várias, a página compara dois.",
            ),
        ] = None,
        more_models: Annotated[
            list[str] | None,
            typer.Option(
                "--model", metavar="NOME=PASTA", help="Mais um modelo, com este nome na página; pode repetir."
            ),
        ] = None,
        share: Annotated[
            bool | None,
            typer.Option(
                "--share/--no-share", help="Cria um link público com senha. No Kaggle já é o padrão."
            ),
        ] = None,
        host: Annotated[
            str,
            typer.Option(
                "--host",
                metavar="ENDEREÇO",
                help="Endereço em que a página atende; 0.0.0.0 abre para a rede, com senha.",
            ),
        ] = "127.0.0.1",
        port: Annotated[
            int | None,
            typer.Option("--port", help="Porta; 0 usa uma livre; sem isto, a primeira a partir de 7860."),
        ] = None,
        no_auth: Annotated[
            bool, typer.Option("--no-auth", help="Não pede senha a quem vem de fora.")
        ] = False,
    ) -> Report:
        """Abre uma página no navegador que continua o seu texto."""
        from ptbr_slm.app import open_page, serve
        from ptbr_slm.storage.naming import named

        facts: list[dict[str, Any]] = []

        def ready(served: Served) -> None:
            facts.append(_facts(served))
            out.event({"event": "ready", **facts[-1]})
            if out.mode is Mode.QUIET:
                out.stream(served.text() + "\n")  # the address and the password are what was asked for
            else:
                out.note(served.text() + ("\nPara encerrar: Ctrl-C" if served.url else ""))

        others = dict(map(named, more_models or []))
        if not models and not others:
            out.note(f"Sem modelo indicado, abro {INTRODUCTION}")
            models = [Path(MACHADO)]
        out.note("Abrindo o modelo e a página…")
        opened = open_page(*(models or ()), named=others)
        serve(opened, host=host, port=port, share=share, auth=not no_auth, ready=ready)
        return Report({"event": "done", **facts[-1]}, "Página encerrada." if facts[-1]["url"] else "")


def _facts(served: Served) -> dict[str, Any]:
    return {
        "url": served.url or None,
        "share_url": served.share_url,
        "user": served.user or None,
        "password": served.password or None,
        "notes": list(served.notes),
    }
