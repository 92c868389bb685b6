"""`ptbr-slm generate`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Mode, Output, Report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ptbr_slm.runtime.types import GenerationChunk, GenerationResult

_SAMPLING = "Amostragem"
_REPETITION = "Repetição e preferência"
_FORM = "Forma do texto"
_RESULT = "Resultado"
_RUN = "Execução"


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
    seed: Annotated[
        int | None,
        typer.Option(help="Semente do sorteio: a mesma dá o mesmo texto.", rich_help_panel=_SAMPLING),
    ] = None,
    repetition_penalty: Annotated[
        float, typer.Option(help="Acima de 1 desfavorece o que já apareceu.", rich_help_panel=_REPETITION)
    ] = 1.0,
    presence_penalty: Annotated[
        float,
        typer.Option(help="De -2 a 2: desfavorece o que já foi gerado uma vez.", rich_help_panel=_REPETITION),
    ] = 0.0,
    frequency_penalty: Annotated[
        float,
        typer.Option(help="De -2 a 2: desfavorece a cada vez que foi gerado.", rich_help_panel=_REPETITION),
    ] = 0.0,
    logit_bias: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID=V",
            help="Soma V, de -100 a 100, ao token ID: -100 proíbe; pode repetir.",
            rich_help_panel=_REPETITION,
        ),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            "--stop",
            metavar="S",
            help="Texto que encerra a geração; pode repetir.",
            rich_help_panel=_FORM,
        ),
    ] = None,
    json_schema: Annotated[
        str | None,
        typer.Option(
            metavar="ARQUIVO|-",
            help="O texto gerado é JSON que segue este esquema; - lê da entrada padrão.",
            rich_help_panel=_FORM,
        ),
    ] = None,
    regex: Annotated[
        str | None,
        typer.Option(
            metavar="EXPRESSÃO",
            help="O texto gerado inteiro segue esta expressão regular.",
            rich_help_panel=_FORM,
        ),
    ] = None,
    n: Annotated[
        int, typer.Option("--n", help="Quantas continuações do mesmo texto.", rich_help_panel=_RESULT)
    ] = 1,
    logprobs: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Mostra a probabilidade de cada token e as K maiores no lugar dele.",
            rich_help_panel=_RESULT,
        ),
    ] = None,
    prompt_logprobs: Annotated[
        bool,
        typer.Option("--prompt-logprobs", help="O mesmo para o texto inicial.", rich_help_panel=_RESULT),
    ] = False,
    lookahead: Annotated[
        int,
        typer.Option(
            help="Tokens adivinhados por passo, do que o texto já repete; só muda a velocidade.",
            rich_help_panel=_RUN,
        ),
    ] = 0,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SEGUNDOS", help="Encerra o texto depois deste tempo.", rich_help_panel=_RUN),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="cpu|cuda|auto", help="Onde executar.", rich_help_panel=_RUN)
    ] = "auto",
) -> Report:
    """Continua um texto em português, mostrando-o enquanto é gerado (com --quiet, só a continuação)."""
    from ptbr_slm.cli.generate_input import parse_bias, read_prompt, read_schema
    from ptbr_slm.cli.generate_text import document, logprob_table, status, status_of_all
    from ptbr_slm.runtime.model import Model, check_prompt, sampling_params

    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "presence_penalty": presence_penalty,
        "frequency_penalty": frequency_penalty,
        "logit_bias": parse_bias(logit_bias or ()),
        "seed": seed,
        "stop": tuple(stop or ()),
        "logprobs": logprobs,
        "prompt_logprobs": prompt_logprobs,
        "n": n,
        "json_schema": read_schema(json_schema, prompt=prompt),
        "regex": regex,
        "lookahead": lookahead,
        "timeout_s": timeout,
    }
    sampling_params(options)
    text = check_prompt(read_prompt(prompt))
    with Model(model, device) as opened:
        start = time.perf_counter()
        results = _show(out, text, opened.stream(text, **options), n)
        seconds = time.perf_counter() - start
        facts = opened.describe()
        tokenizer = opened.engine.tokenizer
    figures: dict[str, Any] = {
        "greedy": temperature == 0,
        "context": int(facts["context"]),
        "formed": json_schema is not None or regex is not None,
    }
    if n == 1:
        out.note(status(results[0], **figures))
    else:
        out.note(status_of_all(results, seconds, **figures))
    scores = [s for result in results for s in (result.prompt_logprobs, result.logprobs) if s]
    data = {"prompt": text, **document(results, tokenizer)}
    return Report(
        data | {key: facts[key] for key in ("engine", "device", "precision", "path")},
        text="\n\n".join(logprob_table(score, tokenizer) for score in scores),
    )


def _show(out: Output, prompt: str, chunks: Iterator[GenerationChunk], n: int) -> list[GenerationResult]:
    """Print the text as it comes; of several completions each when it is whole, the first one first."""
    results: dict[int, GenerationResult] = {}
    shown = 0
    if n == 1 and out.mode is Mode.HUMAN:
        out.stream(prompt)
    try:
        for chunk in chunks:
            if n == 1:
                out.stream(chunk.text)
            if chunk.result is not None:
                results[chunk.completion] = chunk.result
            while n > 1 and shown in results:
                out.stream(_completion(out, prompt, results[shown], shown, n))
                shown += 1
    except BaseException:  # Ctrl-C or an error: the message gets a line of its own
        out.stream("\n" if n == 1 else "")
        raise
    out.stream("\n" if n == 1 else "")
    return [results[index] for index in range(n)]


def _completion(out: Output, prompt: str, result: GenerationResult, index: int, n: int) -> str:
    """One of several: under a line that numbers it for a person, alone with --quiet; a blank line between."""
    gap = "\n" if index else ""
    if out.mode is Mode.QUIET:
        return f"{gap}{result.text}\n"
    return f"{gap}[{index + 1} de {n} · semente {result.seed}]\n{prompt}{result.text}\n"
