"""What the OpenAPI document says of answers, so that clients made from it meet nothing else.

FastAPI would announce its own 422, which this server never gives: what a body cannot be is a 400.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class ErrorFacts(BaseModel):
    """What went wrong, as OpenAI has it; some errors have further keys."""

    model_config = ConfigDict(extra="allow")

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """Every answer that is no success."""

    error: ErrorFacts


class UsageDetails(BaseModel):
    """Of the prompt's tokens, those that were in the cache."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: UsageDetails


class TextLogprobLists(BaseModel):
    """Four lists of one length."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class Ended(BaseModel):
    """Why a text ended."""

    index: int
    finish_reason: str
    stop_reason: str | int | None


class TextChoice(Ended):
    """One text of a completion."""

    model_config = ConfigDict(extra="allow")

    text: str
    logprobs: TextLogprobLists | None


class ChatAnswerMessage(BaseModel):
    """What the model answered."""

    role: str
    content: str
    refusal: str | None


class ChatChoice(Ended):
    """One answer to a conversation."""

    model_config = ConfigDict(extra="allow")

    message: ChatAnswerMessage
    logprobs: dict[str, Any] | None


class Answer(BaseModel):
    """The head of every answer."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    usage: Usage


class TextAnswer(Answer):
    """What /v1/completions answers."""

    choices: list[TextChoice]


class ChatAnswer(Answer):
    """What /v1/chat/completions answers."""

    choices: list[ChatChoice]


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "O pedido não pode ser atendido como está."},
    "5XX": {"model": ErrorAnswer, "description": "O servidor não pode atender agora."},
}
"""For `responses=` of a route."""


def generating(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The same of a route that answers with `model`, or with a stream."""
    stream: dict[str, Any] = {"text/event-stream": {}}
    return {200: {"model": model, "content": stream, "description": "O texto gerado."}, **ERRORS}
