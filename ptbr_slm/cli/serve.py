"""`ptbr-slm serve`: the OpenAI-compatible server on this machine."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Mode, Output, Report
from ptbr_slm.errors import Exit
from ptbr_slm.system import peak_rss
from ptbr_slm.text import human_bytes

if TYPE_CHECKING:
    from ptbr_slm.serve.served import ServedModels

_MODELS = "Modelos"
_ACCESS = "Quem pode usar"
_LIMITS = "Limites"


def register(app: typer.Typer) -> None:
    """Add `serve` to the application."""
    command(
        app,
        "serve",
        examples={
            "ptbr-slm serve runs/meu/export": "Só para esta máquina, na porta 8000",
            "ptbr-slm serve runs/meu/export --page": "Também com a página, em /page",
            "ptbr-slm serve runs/meu/export --host 0.0.0.0 --api-key-file chaves.txt": "Para a rede",
        },
    )(serve)


def serve(
    out: Output,
    model: Annotated[
        Path, typer.Argument(metavar="MODELO", help="Pasta de um modelo exportado, ou de um modelo.")
    ],
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="ENDEREÇO",
            help="Endereço em que o servidor atende; 0.0.0.0 o abre para a rede.",
        ),
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
        str, typer.Option(metavar="auto|cpu|cuda", help="Onde executar.", rich_help_panel=_MODELS)
    ] = "auto",
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="ARQUIVO",
            help="Uma chave por linha; só com uma delas se usa o servidor. Também: PTBR_SLM_API_KEY.",
            rich_help_panel=_ACCESS,
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Atende outras máquinas sem pedir chave.", rich_help_panel=_ACCESS),
    ] = False,
    cors: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGEM",
            help="Página que pode chamar o servidor pelo navegador, como https://a.com; pode repetir.",
            rich_help_panel=_ACCESS,
        ),
    ] = None,
    root_path: Annotated[
        str,
        typer.Option(
            metavar="/PREFIXO",
            help="Prefixo sob o qual um proxy mostra o servidor.",
            rich_help_panel=_ACCESS,
        ),
    ] = "",
    page: Annotated[
        bool, typer.Option("--page", help="Mostra também a página de ptbr-slm app, em /page.")
    ] = False,
    metrics: Annotated[
        bool, typer.Option("--metrics/--no-metrics", help="Se /metrics responde ao Prometheus.")
    ] = True,
    max_slots: Annotated[
        int,
        typer.Option(metavar="N", help="Textos gerados ao mesmo tempo, por modelo.", rich_help_panel=_LIMITS),
    ] = 16,
    max_waiting: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Textos que podem esperar a vez; além disso, o pedido recebe 429.",
            rich_help_panel=_LIMITS,
        ),
    ] = 64,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="S",
            help="Quanto um pedido pode levar, com a espera na fila.",
            rich_help_panel=_LIMITS,
        ),
    ] = 600.0,
    stream_interval_ms: Annotated[
        float,
        typer.Option(
            metavar="MS",
            help="Em stream, no máximo um evento a cada tantos milissegundos; 0 manda cada token sozinho.",
            rich_help_panel=_LIMITS,
        ),
    ] = 20.0,
    drain_seconds: Annotated[
        float,
        typer.Option(
            metavar="S",
            help="Ao encerrar, quanto esperar pelos pedidos em andamento.",
            rich_help_panel=_LIMITS,
        ),
    ] = 30.0,
) -> Report:
    """Serve um modelo pela API da OpenAI.

    Para programas desta máquina; com uma chave, também para os da rede.
    """
    from ptbr_slm.serve.config import ServeConfig
    from ptbr_slm.serve.process.keys import read_keys, readable_by_others
    from ptbr_slm.serve.process.logs import logging_to_stderr
    from ptbr_slm.serve.process.opening import open_served
    from ptbr_slm.serve.process.server import serve as run
    from ptbr_slm.storage.naming import check_names, name_of, named

    config = ServeConfig(
        host=host,
        port=port,
        api_keys=read_keys(api_key_file, os.environ),
        insecure=insecure,
        cors_origins=tuple(cors or ()),
        root_path=root_path,
        page=page,
        metrics=metrics,
        max_slots=max_slots,
        max_waiting=max_waiting,
        stream_interval_s=stream_interval_ms / 1000,
        timeout_s=timeout,
        drain_s=drain_seconds,
    )
    if api_key_file is not None and readable_by_others(api_key_file):
        out.note(f"Outros usuários desta máquina podem ler as chaves. Para evitar:  chmod 600 {api_key_file}")
    folders = [(name or name_of(model), model), *map(named, more_models or [])]
    check_names([each for each, _ in folders])
    facts: dict[str, Any] = {}

    def ready(url: str, models: ServedModels) -> None:
        facts.update(url=url, models=[served.name for served in models])
        if page:
            facts["page"] = f"{url}/page/"
        out.event({"event": "ready", **facts})
        if out.mode is Mode.QUIET:
            out.stream(url + "\n")
        else:
            out.note("\n".join([f"Servidor em {url}/v1", *_told(facts, models), "Para encerrar: Ctrl-C"]))

    limits = config.batch_limits
    opening = (open_served(each, folder, device, limits) for each, folder in folders)
    out.note("Abrindo o modelo…")
    as_json = out.mode is Mode.JSON or not sys.stderr.isatty()
    with logging_to_stderr(as_json=as_json, requests=out.mode is not Mode.QUIET):
        ended = run(opening, config, ready)
    stopped = Exit.INTERRUPTED if ended.signal == signal.SIGINT else Exit.STOPPED
    text = "Servidor encerrado." + (f" Pedidos interrompidos: {ended.cut}." if ended.cut else "")
    data = {"event": "done", "cut": ended.cut, **facts}
    return Report(data, text, exit_code=stopped if ended.cut or not facts else Exit.OK)


def _told(facts: dict[str, Any], models: ServedModels) -> Iterator[str]:
    """What is there besides the API: the page, each model, and what all of it holds in memory."""
    from ptbr_slm.app.figures import card_lines

    if "page" in facts:
        yield f"Página em {facts['page']}"
    for served in models:
        card = dict(card_lines(served.model.describe()))
        told = [card[label] for label in ("Formato", "Tamanho") if label in card]
        yield f"  {served.name}: {', '.join(told)}, contexto de {card['Contexto']}"
    memory = peak_rss()
    if memory is not None:
        yield f"Memória do processo: {human_bytes(memory)}"
