"""/v1/completions: a text, or token ids, continued."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from ptbr_slm.runtime.prompt import Prompt, TokenPrompt
from ptbr_slm.runtime.results import GenerationResult
from ptbr_slm.serve.errors import ApiError
from ptbr_slm.serve.openai.answers import Envelope, finish_reason, stop_reason, usage
from ptbr_slm.serve.openai.body import GenerationBody, TokenId
from ptbr_slm.serve.openai.generation import collect, submit
from ptbr_slm.serve.openai.sampling import sampling_options, unsupported
from ptbr_slm.serve.openai.stream import Delta, EventStream
from ptbr_slm.serve.served import ServedModel

router = APIRouter()

MAX_TOKENS = 16
"""Where the body names none, as at OpenAI and vLLM."""


class CompletionBody(GenerationBody):
    """The body of /v1/completions."""

    prompt: str | list[str] | list[TokenId] | list[list[TokenId]]
    max_tokens: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """0 only scores the prompt, with echo or prompt_logprobs."""
    best_of: int | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    suffix: str | None = None
    add_special_tokens: bool | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=-1)] | None = None


@router.post("/v1/completions")
async def create_completion(request: Request, body: CompletionBody) -> Response:
    """Continue a text."""
    served: ServedModel = request.app.state.models.find(body.model)
    options = _options(body, served)
    texts = _texts(body)
    n = options.get("n", 1)
    call = await submit(request, served, lambda: [_prompt(text) for text in texts], options)
    envelope = Envelope(served, "text_completion", "cmpl")
    if body.stream:
        asked = body.stream_options
        with_usage = asked is not None and asked.include_usage
        return EventStream(
            call, n, _delta, envelope, (lambda found: usage(found, n)) if with_usage else None, len(texts) * n
        )
    results = await collect(request, call, len(texts) * n)
    choices = [_choice(index, result) for index, result in enumerate(results)]
    return JSONResponse(envelope(choices, usage=usage(results, n)))


def _options(body: CompletionBody, served: ServedModel) -> dict[str, Any]:
    n = body.n or 1
    if body.suffix:
        raise unsupported("suffix", "suffix não é aceito: o modelo só continua textos.")
    if body.best_of is not None and body.best_of != n:
        raise unsupported("best_of", "best_of só é aceito igual a n.")
    count = MAX_TOKENS if body.max_tokens is None else body.max_tokens
    options = {"max_new_tokens": count, **sampling_options(body, served.model.engine.tokenizer.vocab_size)}
    if body.logprobs is not None:
        options["logprobs"] = body.logprobs
    return options


def _texts(body: CompletionBody) -> Sequence[str | list[int]]:
    prompt = body.prompt
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise ApiError(400, "A lista de textos está vazia.", code="invalid_prompt", param="prompt")
    ids = [each for each in prompt if isinstance(each, int)]
    return [ids] if ids else [each for each in prompt if not isinstance(each, int)]


def _prompt(text: str | list[int]) -> Prompt:
    return text if isinstance(text, str) else TokenPrompt(tuple(text))


def _choice(index: int, result: GenerationResult) -> dict[str, Any]:
    return {
        "index": index,
        "text": result.text,
        "logprobs": None,
        "finish_reason": finish_reason(result),
        "stop_reason": stop_reason(result),
    }


def _delta(delta: Delta) -> list[dict[str, Any]]:
    result = delta.result
    return [
        {
            "index": delta.index,
            "text": delta.text,
            "logprobs": None,
            "finish_reason": None if result is None else finish_reason(result),
            "stop_reason": None if result is None else stop_reason(result),
        }
    ]
