"""How `ptbr-slm generate` shows results: the line of figures, log probabilities, and the JSON document."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ptbr_slm.cli.output import table
from ptbr_slm.text import number

if TYPE_CHECKING:
    from ptbr_slm.runtime.types import GenerationResult, TokenLogprob
    from ptbr_slm.tokenizer import Tokenizer


def document(results: Sequence[GenerationResult], tokenizer: Tokenizer) -> dict[str, Any]:
    """One completion as it is, several under `completions`; each log probability with its token's text."""
    found = [_fields(result, tokenizer) for result in results]
    return found[0] if len(found) == 1 else {"completions": found}


def _fields(result: GenerationResult, tokenizer: Tokenizer) -> dict[str, Any]:
    fields = asdict(result)
    for key in ("logprobs", "prompt_logprobs"):
        scores = getattr(result, key)
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
