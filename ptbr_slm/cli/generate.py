"""`ptbr-slm generate`."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Mode, Output, Report, table
from ptbr_slm.cli.sampling_options import SAMPLING, MinP, Temperature, TopK, TopP, refuse_no_tokens
from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.text import decode, is_utf16, number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ptbr_slm.runtime.results import GenerationChunk, GenerationResult, TokenLogprob
    from ptbr_slm.tokenizer import Tokenizer


_REPETITION = "Repetição e preferência"
_FORM = "Forma do texto"
_RESULT = "Resultado"
_RUN = "Execução"


EXAMPLES = {
    'ptbr-slm generate -m machado "O rio corre"': "Continuar uma frase",
    'ptbr-slm generate -m machado "Era uma vez" -n 60 --seed 7 --n 3': "Três continuações que se repetem",
    "cat começo.txt | ptbr-slm generate -m meu/export --temperature 0": "O mais provável, de um arquivo",
}


def register(app: typer.Typer) -> None:
    """Add `generate` to the application."""
    command(app, "generate", examples=EXAMPLES)(generate)


def generate(
    out: Output,
    model: Annotated[
        Path,
        typer.Option(
            "--model",
            "-m",
            metavar="PASTA",
            help="Export ou pasta de modelo; ou machado, que vem com o pacote.",
        ),
    ],
    prompt: Annotated[
        str | None, typer.Argument(metavar="TEXTO|-", help="Como o texto começa; - lê da entrada padrão.")
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", metavar="N", help="Tokens a gerar, no máximo.")
    ] = 128,
    temperature: Temperature = 0.8,
    top_k: TopK = 0,
    top_p: TopP = 0.95,
    min_p: MinP = 0.0,
    seed: Annotated[
        int | None,
        typer.Option(help="Semente do sorteio: a mesma dá o mesmo texto.", rich_help_panel=SAMPLING),
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
    min_tokens: Annotated[
        int,
        typer.Option(metavar="N", help="Tokens antes dos quais nada encerra o texto.", rich_help_panel=_FORM),
    ] = 0,
    ignore_eos: Annotated[
        bool,
        typer.Option(
            "--ignore-eos",
            help="Segue depois do fim do texto, até -n: para medir velocidade.",
            rich_help_panel=_FORM,
        ),
    ] = False,
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
    draft: Annotated[
        str,
        typer.Option(
            metavar="auto|always|never",
            help="Usar a camada de rascunho do modelo, se tem uma; auto: enquanto compensa.",
            rich_help_panel=_RUN,
        ),
    ] = "auto",
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SEGUNDOS", help="Encerra o texto depois deste tempo.", rich_help_panel=_RUN),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda", help="Onde executar.", rich_help_panel=_RUN)
    ] = "auto",
) -> Report:
    """Continua um texto em português.

    O texto aparece enquanto é gerado; com --quiet, só a continuação.
    """
    from ptbr_slm.runtime.model import Model
    from ptbr_slm.runtime.prompt import check_prompt
    from ptbr_slm.runtime.sampling.params import sampling_params

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
        "min_tokens": min_tokens,
        "ignore_eos": ignore_eos,
        "logprobs": logprobs,
        "prompt_logprobs": prompt_logprobs,
        "n": n,
        "json_schema": read_schema(json_schema, prompt=prompt),
        "regex": regex,
        "lookahead": lookahead,
        "draft": draft,
        "timeout_s": timeout,
    }
    sampling_params(options)
    if not prompt_logprobs:
        refuse_no_tokens(max_new_tokens, "-n")
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


def read_prompt(prompt: str | None) -> str:
    """The argument, or standard input for `-` and for no argument in a pipe. Raises E_PROMPT."""
    if prompt is not None and prompt != "-":
        return prompt
    if prompt is None and sys.stdin.isatty():
        return ""
    try:
        with os_errors("entrada padrão"):
            raw = sys.stdin.buffer.read()
        text = decode(raw)
    except UnicodeDecodeError as error:
        encoding, guess = ("utf-16", " (parece UTF-16)") if is_utf16(raw) else ("latin1", "")
        raise SlmError(
            "E_PROMPT",
            f"a entrada padrão não é texto em UTF-8{guess}.",
            where=f"byte {error.start}",
            hint=f"Converta antes:  iconv -f {encoding} -t utf-8 T | ptbr-slm generate -m PASTA -",
        ) from error
    return text.removesuffix("\n").removesuffix("\r")  # the line end that echo adds


def read_schema(source: str | None, *, prompt: str | None) -> str | None:
    """The text of a JSON schema from a file, or from standard input for `-`; None for None.

    Raises E_USAGE where the prompt is to come from standard input too, E_SAMPLING for what is not UTF-8.
    """
    if source is None:
        return None
    if source == "-" and prompt in (None, "-"):
        raise SlmError(
            "E_USAGE",
            "a entrada padrão não pode trazer o texto inicial e o esquema ao mesmo tempo.",
            where="--json-schema -",
            hint='Dê o texto inicial na linha:  ptbr-slm generate -m PASTA "TEXTO" --json-schema -',
        )
    with os_errors("entrada padrão" if source == "-" else source):
        raw = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    try:
        return decode(raw)
    except UnicodeDecodeError as error:
        raise SlmError(
            "E_SAMPLING",
            "o esquema JSON não é texto em UTF-8.",
            where=f"{source}, byte {error.start}",
            hint="Salve o arquivo em UTF-8 e repita o comando.",
        ) from error


def parse_bias(entries: Sequence[str]) -> dict[int, float]:
    """`["42=-100"]` -> {42: -100.0}. Raises E_SAMPLING for what is not ID=V, or an id given twice."""
    bias: dict[int, float] = {}
    for entry in entries:
        token, _, value = entry.partition("=")
        try:
            key, added = int(token), float(value)
        except ValueError:
            key, added = -1, 0.0
        if key < 0 or key in bias:
            raise SlmError(
                "E_SAMPLING",
                f"--logit-bias leva ID=VALOR, um id por vez, e não {entry[:60]!r}.",
                where="--logit-bias",
                hint="Exemplo: --logit-bias 42=-100. Os ids:  ptbr-slm tokenizer inspect TEXTO --tokenizer T",
            )
        bias[key] = added
    return bias


def document(results: Sequence[GenerationResult], tokenizer: Tokenizer) -> dict[str, Any]:
    """One completion as it is, several under `completions`; each log probability with its token's text."""
    found = [_fields(result, tokenizer) for result in results]
    return found[0] if len(found) == 1 else {"completions": found}


def _fields(result: GenerationResult, tokenizer: Tokenizer) -> dict[str, Any]:
    fields = asdict(result)
    del fields["dropped_messages"]  # of conversations
    for key, scores in (("logprobs", result.logprobs), ("prompt_logprobs", result.prompt_logprobs)):
        fields[key] = None if scores is None else [_named(score, tokenizer) for score in scores]
    return fields


def _named(score: TokenLogprob | None, tokenizer: Tokenizer) -> dict[str, Any] | None:
    if score is None:
        return None
    top = [{"token": i, "text": _piece(i, tokenizer), "logprob": value} for i, value in score.top]
    return {
        "token": score.token,
        "text": _piece(score.token, tokenizer),
        "logprob": score.logprob,
        "top": top,
    }


def logprob_table(scores: Sequence[TokenLogprob | None], tokenizer: Tokenizer) -> str:
    """A line a token: its text, its probability, and the most probable ones in its place."""
    rows = []
    for score in scores:
        if score is None:
            continue
        top = "  ".join(f"{_quoted(i, tokenizer)} {_percent(value)}" for i, value in score.top)
        rows.append((_quoted(score.token, tokenizer), _percent(score.logprob), top))
    if not any(top for _, _, top in rows):
        return table([row[:2] for row in rows], header=("token", "probabilidade"))
    width = max(len(top) for _, _, top in rows)
    return table(
        [(token, share, top.ljust(width)) for token, share, top in rows],
        header=("token", "probabilidade", "as mais prováveis".ljust(width)),
    )


def status(result: GenerationResult, *, greedy: bool, context: int, formed: bool) -> str:
    """54 tokens · 37 tokens/s · primeiro token 34 ms · semente 42.

    formed: whether a JSON schema or a regex was to be followed.
    """
    count = len(result.tokens)
    parts = [f"{number(count)} token{'s' if count != 1 else ''}"]
    if result.tokens_per_second:
        parts.append(f"{_speed(result.tokens_per_second)} tokens/s")
    if count:
        parts.append(f"primeiro token {number(1000 * result.time_to_first_token_s)} ms")
    if result.drafted:
        parts.append(f"{number(result.accepted)} de {number(result.drafted)} palpites certos")
    if not greedy:
        parts.append(f"semente {result.seed}")
    ended = why(result, context=context, formed=formed)
    return " · ".join([*parts, ended] if ended else parts)


def status_of_all(
    results: Sequence[GenerationResult], seconds: float, *, greedy: bool, context: int, formed: bool
) -> str:
    """3 textos · 54 tokens · 80 tokens/s ao todo · primeiro token 34 ms."""
    count = sum(len(result.tokens) for result in results)
    first = min(result.time_to_first_token_s for result in results)
    parts = [
        f"{len(results)} textos",
        f"{number(count)} tokens",
        f"{_speed(count / seconds)} tokens/s ao todo",
        f"primeiro token {number(1000 * first)} ms",
    ]
    if greedy:
        parts.append("iguais, pois a temperatura é 0")
    ends = [why(result, context=context, formed=formed) for result in results]
    parts += [f"{ends.count(end)}: {end}" for end in dict.fromkeys(ends) if end]
    return " · ".join(parts)


def why(result: GenerationResult, *, context: int, formed: bool) -> str:
    """Why a text ended, where a reader would not expect it; else empty."""
    match result.finish_reason:
        case "context":
            ended = f"o contexto do modelo acabou ({number(context)} tokens)"
        case "timeout":
            ended = "o tempo acabou"
        case "cancelled":
            ended = "interrompido"
        case "length" if formed:
            return "a forma ficou incompleta: aumente -n"
        case _:
            return ""
    return f"{ended}, e a forma ficou incompleta" if formed else ended


def _piece(token: int, tokenizer: Tokenizer) -> str:
    return tokenizer.tokens([token])[0]


def _quoted(token: int, tokenizer: Tokenizer) -> str:
    """In one line, its spaces and bytes to be seen: `" rio"`, `"\\n"`, `"\\xc3"`."""
    spelled = tokenizer.token_bytes(token).decode("utf-8", errors="backslashreplace")
    piece = spelled or _piece(token, tokenizer)
    return '"' + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in piece) + '"'


def _percent(logprob: float) -> str:
    share = 100 * math.exp(logprob)
    return f"{number(share, 1)} %" if share >= 0.05 else "< 0,1 %"


def _speed(rate: float) -> str:
    return number(rate, 0 if rate >= 10 else 1)
