"""`ptbr-slm serve`: the OpenAI-compatible server on this machine."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Mode, Output, Report
from ptbr_slm.errors import Exit, SlmError

if TYPE_CHECKING:
    from ptbr_slm.serve.served import ServedModels

_MODELS = "Modelos"
_ACCESS = "Quem pode usar"


def register(app: typer.Typer) -> None:
    """Add `serve` to the application."""
    command(app, "serve")(serve)


def serve(
    out: Output,
    model: Annotated[
        Path, typer.Argument(metavar="MODELO", help="Pasta de um modelo exportado, ou de um modelo.")
    ],
    host: Annotated[
        str,
        typer.Option("--host", help="Endereço em que o servidor atende; 0.0.0.0 o abre para a rede."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", help="Porta; 0 usa uma livre.")] = 8000,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NOME",
            help="Como os clientes chamam o modelo; sem isto, o nome da pasta (runs/meu/export é meu).",
            rich_help_panel=_MODELS,
        ),
    ] = None,
    more_models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="NOME=PASTA",
            help="Mais um modelo no mesmo servidor; pode repetir.",
            rich_help_panel=_MODELS,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="NOME", help="auto, cpu ou cuda.", rich_help_panel=_MODELS)
    ] = "auto",
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Atende outras máquinas sem pedir chave.", rich_help_panel=_ACCESS),
    ] = False,
    drain_seconds: Annotated[
        float,
        typer.Option(
            metavar="S", help="Ao encerrar, quanto esperar pelos pedidos em andamento.", min=0.0, max=3600.0
        ),
    ] = 30.0,
) -> Report:
    """Serve um modelo pela API da OpenAI, para programas desta máquina ou da rede."""
    from ptbr_slm.serve.config import ServeConfig
    from ptbr_slm.serve.opening import check_names, name_of, open_served
    from ptbr_slm.serve.server import serve as run

    config = ServeConfig(host=host, port=port, insecure=insecure, drain_s=drain_seconds)
    folders = [(name or name_of(model), model), *map(_named, more_models or [])]
    check_names([each for each, _ in folders])
    facts: dict[str, Any] = {}

    def ready(url: str, models: ServedModels) -> None:
        facts.update(url=url, models=[served.name for served in models])
        out.event({"event": "ready", **facts})
        if out.mode is Mode.QUIET:
            out.stream(url + "\n")
        else:
            listed = ", ".join(facts["models"])
            out.note(f"Servidor em {url}/v1   modelo: {listed}\nPara encerrar: Ctrl-C")

    out.note("Abrindo o modelo…")
    ended = run((open_served(each, folder, device) for each, folder in folders), config, ready)
    code = Exit.OK
    if ended.cut or not facts:
        code = Exit.INTERRUPTED if ended.signal == signal.SIGINT else Exit.STOPPED
    text = "Servidor encerrado."
    if ended.cut:
        text += f" Pedidos interrompidos: {ended.cut}."
    return Report({"event": "done", "cut": ended.cut, **facts}, text, exit_code=code)


def _named(text: str) -> tuple[str, Path]:
    """(name, folder) of `NOME=PASTA`. Raises E_USAGE."""
    name, equals, folder = text.partition("=")
    if not equals or not folder:
        raise SlmError(
            "E_USAGE",
            f"--model espera NOME=PASTA, e recebeu {text!r}.",
            where="--model",
            hint="Por exemplo:  --model conversa=runs/conversa/export",
        )
    return name, Path(folder)
