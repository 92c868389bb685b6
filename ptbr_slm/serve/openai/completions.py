"""/v1/completions: a text, or token ids, continued.

Where a body leaves something out, it is as everywhere in this product: temperature 0.8 and top_p 0.95, which
suit a small model (OpenAI's own 1 and 1 suit theirs; vLLM and llama.cpp too have the model's, or their own).
`max_tokens` is 16, as at OpenAI and vLLM.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from ptbr_slm.runtime.prompt import Prompt, TokenPrompt, check_prompt
from ptbr_slm.runtime.results import GenerationResult
from ptbr_slm.serve.openai.answers import Envelope, finish_reason, stop_reason, usage
from ptbr_slm.serve.openai.body import GenerationBody, TokenId, only
from ptbr_slm.serve.openai.documented import TextAnswer, generating
from ptbr_slm.serve.openai.generation import Generation, collect, submit
from ptbr_slm.serve.openai.logprobs import TextLogprobs, joined, prompt_logprobs
from ptbr_slm.serve.openai.refusals import invalid, unsupported
from ptbr_slm.serve.openai.sampling import sampling_options
from ptbr_slm.serve.openai.stream import Delta, EventStream
from ptbr_slm.serve.served import ServedModel
from ptbr_slm.tokenizer import Tokenizer

router = APIRouter()

MAX_TOKENS = 16

MOST_TEXTS = 512
"""Of one request, prompts times n; the queue's own limits may allow fewer at a time."""


class CompletionBody(GenerationBody):
    """The body of /v1/completions."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MOST_TEXTS)]
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[
            list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1, max_length=MOST_TEXTS)
        ]
    )
    """A text, token ids, or a list of either."""
    max_tokens: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """0 scores the prompt only, with `echo` or `prompt_logprobs`. What the context has no room for is cut."""
    best_of: int | None = None
    """Only equal to `n`."""
    echo: bool | None = None
    """Give the prompt back before the text, as its tokens spell it. With `logprobs` not in a stream."""
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    suffix: str | None = only("", why="O modelo só continua textos.")
    add_special_tokens: bool | None = None
    """Whether a text begins with the model's BOS; true where absent."""
    truncate_prompt_tokens: Annotated[int, Field(ge=-1)] | None = None
    """Keep only so many tokens at the end of a prompt; -1: what the context and max_tokens leave room for."""


@router.post("/v1/completions", responses=generating(TextAnswer))
async def create_completion(request: Request, body: CompletionBody) -> Response:
    """Continue a text."""
    served: ServedModel = request.app.state.models.find(body.model)
    options = _options(body, served)
    room = served.model.engine.config.max_seq_len - options["max_new_tokens"]
    generation = await submit(
        request,
        served,
        lambda: _prompts(body, served.model.engine.tokenizer, max(1, room)),
        options,
        field="prompt",
    )
    choices = TextChoices(body, generation)
    envelope = Envelope(served, "text_completion", "cmpl")
    if body.stream:
        return EventStream(generation, envelope, choices.of_delta, body.stream_options)
    results = await collect(generation)

    def answer() -> Response:
        found = [choices.of_result(index, result) for index, result in enumerate(results)]
        return JSONResponse(envelope(found, usage=usage(results, generation.n)))

    # 16 prompts of 1,000 tokens with logprobs take 40 ms to write: no stream should wait for that.
    scored = body.logprobs is not None or body.prompt_logprobs is not None
    return await asyncio.to_thread(answer) if scored else answer()


def _options(body: CompletionBody, served: ServedModel) -> dict[str, Any]:
    """Options for `Model.submit`. Raises ApiError 400."""
    options = sampling_options(body, served.model.engine.tokenizer.vocab_size)
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise unsupported("best_of", "best_of só é aceito igual a n: o servidor não escolhe entre os textos.")
    if len(_texts(body)) * (body.n or 1) > MOST_TEXTS:
        raise invalid("n", f"Um pedido tem no máximo {MOST_TEXTS} textos, contadas as n vezes de cada um.")
    count = MAX_TOKENS if body.max_tokens is None else body.max_tokens
    scores_prompt = body.prompt_logprobs is not None or bool(body.echo and body.logprobs is not None)
    if count == 0 and not body.echo and not scores_prompt:
        raise invalid("max_tokens", "max_tokens: 0 só vale com echo ou prompt_logprobs.")
    if body.stream and scores_prompt:
        given = "prompt_logprobs" if body.prompt_logprobs is not None else "echo"
        raise unsupported(given, "As probabilidades do texto inicial não vão em stream: use stream: false.")
    if body.logprobs is not None or scores_prompt:
        options["logprobs"] = max(body.logprobs or 0, body.prompt_logprobs or 0)
        options["prompt_logprobs"] = scores_prompt
    return {"max_new_tokens": count, **options}


def _texts(body: CompletionBody) -> Sequence[Any]:
    """What `prompt` holds: texts, or lists of token ids."""
    one = isinstance(body.prompt, str) or isinstance(body.prompt[0], int)
    return [body.prompt] if one else body.prompt


def _prompts(body: CompletionBody, tokenizer: Tokenizer, room: int) -> list[Prompt]:
    """room: tokens that `truncate_prompt_tokens: -1` keeps."""
    special = body.add_special_tokens is not False
    kept = body.truncate_prompt_tokens
    found: list[Prompt] = []
    for text in _texts(body):
        if isinstance(text, str) and special and kept is None:
            found.append(text)
            continue
        ids = tokenizer.encode(check_prompt(text), special=special) if isinstance(text, str) else text
        last = len(ids) if kept is None else room if kept < 0 else kept
        found.append(TokenPrompt(tuple(ids[max(0, len(ids) - last) :])))
    return found


class TextChoices:
    """The choices of an answer, or of the chunks of a stream."""

    def __init__(self, body: CompletionBody, generation: Generation) -> None:
        self._body, self._n = body, generation.n
        self._tokenizer = generation.served.model.engine.tokenizer
        self._prompts = generation.prompts
        self._logprobs: dict[int, TextLogprobs] = {}
        """Of each choice that has begun."""
        self._begun: set[int] = set()

    def of_result(self, index: int, result: GenerationResult) -> dict[str, Any]:
        """A whole text."""
        body, ids = self._body, self._prompts[index // self._n]
        before = self._echoed(ids) if body.echo else ""
        logprobs = None
        if body.logprobs is not None:
            speller = self._speller(continuation=not body.echo)
            echoed = None if not body.echo else speller.prompt(ids, result.prompt_logprobs or ())
            logprobs = speller.generated(result.logprobs or (), len(before) + len(result.text))
            logprobs = logprobs if echoed is None else joined(echoed, logprobs)
        found = self._choice(index, before + result.text, logprobs, result)
        if body.prompt_logprobs is not None:
            known = result.prompt_logprobs or ()
            found["prompt_logprobs"] = prompt_logprobs(self._tokenizer, known, body.prompt_logprobs)
        if body.return_token_ids:
            found |= {"prompt_token_ids": list(ids), "token_ids": list(result.tokens)}
        return found

    def of_delta(self, delta: Delta) -> list[dict[str, Any]]:
        """What has come of a text. The first chunk of an echo begins with the prompt."""
        body, index, result = self._body, delta.index, delta.result
        ids = self._prompts[index // self._n]
        first = index not in self._begun
        self._begun.add(index)
        before = self._echoed(ids) if body.echo and first else ""
        logprobs = None
        if body.logprobs is not None:
            speller = self._logprobs.setdefault(index, self._speller(continuation=True))
            logprobs = speller.generated(delta.logprobs, None if result is None else len(result.text))
        found = self._choice(index, before + delta.text, logprobs, result)
        if body.return_token_ids:
            found |= {"prompt_token_ids": list(ids) if first else None, "token_ids": delta.tokens}
        return [found]

    def _speller(self, *, continuation: bool) -> TextLogprobs:
        return TextLogprobs(
            self._tokenizer,
            self._body.logprobs or 0,
            ids_as_tokens=bool(self._body.return_tokens_as_token_ids),
            continuation=continuation,
        )

    def _echoed(self, ids: Sequence[int]) -> str:
        decoder = self._tokenizer.stream_decoder()
        return "".join(map(decoder.push, ids)) + decoder.finish()

    def _choice(
        self, index: int, text: str, logprobs: dict[str, Any] | None, result: GenerationResult | None
    ) -> dict[str, Any]:
        return {
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": None if result is None else finish_reason(result),
            "stop_reason": None if result is None else stop_reason(result),
        }
