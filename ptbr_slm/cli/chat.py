"""`ptbr-slm chat`: a conversation with a model, at a terminal or through a pipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Mode, Output, Report
from ptbr_slm.cli.sampling_options import SAMPLING, MinP, Temperature, TopK, TopP, refuse_no_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ptbr_slm.cli.chat_session import ChatSession
    from ptbr_slm.runtime.model import Model

_RUN = "Execução"


def register(app: typer.Typer) -> None:
    """Add `chat` to the application."""
    command(
        app,
        "chat",
        examples={
            "ptbr-slm chat conversa/export": "Conversar",
            'echo "Onde fica o Ceará?" | ptbr-slm chat conversa/export -q': "Uma só pergunta",
        },
    )(chat)


def chat(
    out: Output,
    model: Annotated[Path, typer.Argument(metavar="MODELO", help="Export ou pasta de modelo.")],
    system: Annotated[
        str, typer.Option("--system", "-s", metavar="TEXTO", help="Diz ao modelo como agir (sistema).")
    ] = "",
    max_new_tokens: Annotated[
        int,
        typer.Option("--max-tokens", "--max-new-tokens", "-n", metavar="N", help="Tokens de uma resposta."),
    ] = 256,
    temperature: Temperature = 0.3,
    top_k: TopK = 0,
    top_p: TopP = 0.9,
    min_p: MinP = 0.0,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Semente da primeira resposta; as outras, as seguintes. Repete a conversa.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    repetition_penalty: Annotated[
        float,
        typer.Option(
            help="Acima de 1 desfavorece o que já apareceu, a pergunta também; até 1,1.",
            rich_help_panel=SAMPLING,
        ),
    ] = 1.0,
    presence_penalty: Annotated[
        float,
        typer.Option(help="De -2 a 2: desfavorece o que já foi gerado uma vez.", rich_help_panel=SAMPLING),
    ] = 0.0,
    frequency_penalty: Annotated[
        float,
        typer.Option(help="De -2 a 2: desfavorece a cada vez que foi gerado.", rich_help_panel=SAMPLING),
    ] = 0.0,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", metavar="S", help="Texto que encerra a resposta; pode repetir."),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(metavar="ARQUIVO", help="Guarda as linhas digitadas, para a seta para cima."),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SEGUNDOS", help="Encerra a resposta depois deste tempo.", rich_help_panel=_RUN),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda", help="Onde executar.", rich_help_panel=_RUN)
    ] = "auto",
) -> Report:
    """Conversa com um modelo.

    No terminal, /ajuda mostra os comandos; num pipe, cada linha é uma mensagem.
    """
    from ptbr_slm.cli.chat_lines import Interrupts, piped_lines, terminal_lines
    from ptbr_slm.cli.chat_session import ChatSession
    from ptbr_slm.runtime.model import Model
    from ptbr_slm.runtime.prompt import untuned_warning
    from ptbr_slm.runtime.sampling.params import SamplingOptions, sampling_params

    options: SamplingOptions = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "presence_penalty": presence_penalty,
        "frequency_penalty": frequency_penalty,
        "seed": seed,
        "stop": tuple(stop or ()),
        "timeout_s": timeout,
    }
    sampling_params(options)
    refuse_no_tokens(max_new_tokens, "--max-tokens")
    person = sys.stdin.isatty() and out.mode is not Mode.JSON
    interrupts = Interrupts() if person else None
    with Model(model, device) as opened:
        tuned = opened.is_tuned
        out.event({"event": "ready", **_facts(opened), "tuned": tuned})
        if not tuned:
            out.note(f"Atenção: {untuned_warning(model)}")
        session = ChatSession(out, opened, options, system=system.strip(), interrupts=interrupts)
        if interrupts is None:
            _converse(session, piped_lines())
        else:
            out.note("Escreva uma mensagem; /ajuda mostra os comandos, Ctrl-C interrompe a resposta.")
            prompt = "\nVocê: " if out.mode is Mode.HUMAN else "> "
            with interrupts.installed():
                _converse(session, terminal_lines(out, interrupts, prompt, history))
        return Report({"event": "done", "answers": session.answers})


def _converse(session: ChatSession, lines: Iterable[str]) -> None:
    """Hand the lines to the session until either ends."""
    for line in lines:
        if not session.take(line):
            return


def _facts(model: Model) -> dict[str, Any]:
    facts = model.describe()
    return {key: facts[key] for key in ("path", "engine", "device", "precision", "context")}
