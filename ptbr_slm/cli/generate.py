"""`ptbr-slm generate`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report, number

if TYPE_CHECKING:
    from ptbr_slm.runtime.types import GenerationResult

_SAMPLING = "Amostragem"


def register(app: typer.Typer) -> None:
    """Add `generate` to the application."""
    command(app, "generate")(generate)


def generate(
    out: Output,
    model: Annotated[Path, typer.Option("--model", "-m", metavar="PASTA", help="Export ou pasta de modelo.")],
    prompt: Annotated[
        str | None, typer.Argument(metavar="[TEXTO|-]", help="Como o texto começa; - lê da entrada padrão.")
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", metavar="N", help="Tokens a gerar, no máximo.")
    ] = 128,
    temperature: Annotated[
        float, typer.Option(help="0 escolhe sempre o mais provável.", rich_help_panel=_SAMPLING)
    ] = 0.8,
    top_k: Annotated[
        int, typer.Option(help="Só os K mais prováveis; 0 são todos.", rich_help_panel=_SAMPLING)
    ] = 0,
    top_p: Annotated[
        float, typer.Option(help="Só os mais prováveis até somarem P.", rich_help_panel=_SAMPLING)
    ] = 0.95,
    min_p: Annotated[
        float, typer.Option(help="Só os de ao menos P vezes o mais provável.", rich_help_panel=_SAMPLING)
    ] = 0.0,
    repetition_penalty: Annotated[
        float, typer.Option(help="Acima de 1 desfavorece repetições.", rich_help_panel=_SAMPLING)
    ] = 1.0,
    seed: Annotated[
        int | None,
        typer.Option(help="Semente do sorteio: a mesma dá o mesmo texto.", rich_help_panel=_SAMPLING),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", metavar="S", help="Texto que encerra a geração; pode repetir."),
    ] = None,
    device: Annotated[str, typer.Option(metavar="cpu|cuda|auto", help="Onde executar.")] = "auto",
) -> Report:
    """Continua um texto em português, mostrando-o enquanto é gerado (com --quiet, só a continuação)."""
    from ptbr_slm.cli.output import Mode
    from ptbr_slm.errors import SlmError
    from ptbr_slm.runtime.model import Model, check_prompt, sampling_params

    options = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "stop": tuple(stop or ()),
    }
    sampling_params(options)
    text = check_prompt(_read_prompt(prompt))
    result: GenerationResult | None = None
    with Model(model, device) as opened:
        chunks = opened.stream(text, **options)
        if out.mode is Mode.HUMAN:
            out.stream(text)
        try:
            for chunk in chunks:
                out.stream(chunk.text)
                result = chunk.result or result
        except (KeyboardInterrupt, SlmError):
            out.stream("\n")  # the message gets a line of its own
            raise
        facts = opened.describe()
    assert result is not None  # the last chunk carries it
    out.stream("\n")
    out.note(_status(result, greedy=temperature == 0, context=int(facts["context"])))
    data = {"prompt": text, **asdict(result)}
    return Report(data | {key: facts[key] for key in ("engine", "device", "precision", "path")})


def _read_prompt(prompt: str | None) -> str:
    """The argument, or standard input for `-` and for no argument in a pipe. Raises E_PROMPT."""
    from ptbr_slm.errors import SlmError

    if prompt is not None and prompt != "-":
        return prompt
    if prompt is None and sys.stdin.isatty():
        return ""
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise SlmError(
            "E_PROMPT",
            "a entrada padrão não é texto em UTF-8.",
            where=f"byte {error.start}",
            hint="Converta antes, por exemplo:  iconv -f latin1 -t utf-8 T | ptbr-slm generate -m PASTA -",
        ) from error
    return text.removesuffix("\n").removesuffix("\r")  # the line end that echo adds


def _status(result: GenerationResult, *, greedy: bool, context: int) -> str:
    """54 tokens · 37 tokens/s · primeiro token 34 ms · semente 42."""
    count = len(result.tokens)
    parts = [f"{number(count)} token{'s' if count > 1 else ''}"]
    if result.tokens_per_second:
        parts.append(
            f"{number(result.tokens_per_second, 0 if result.tokens_per_second >= 10 else 1)} tokens/s"
        )
    parts.append(f"primeiro token {number(1000 * result.time_to_first_token_s)} ms")
    if not greedy:
        parts.append(f"semente {result.seed}")
    if result.finish_reason == "context":
        parts.append(f"o contexto do modelo acabou ({number(context)} tokens)")
    return " · ".join(parts)
