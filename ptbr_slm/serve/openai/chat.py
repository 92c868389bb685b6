"""/v1/chat/completions: the answer to a conversation, in the form of the model's own template."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from ptbr_slm.runtime.prompt import CHAT_SAMPLING, ChatPrompt
from ptbr_slm.runtime.results import GenerationResult
from ptbr_slm.serve.openai.answers import Envelope, finish_reason, stop_reason, usage
from ptbr_slm.serve.openai.body import Body, GenerationBody
from ptbr_slm.serve.openai.generation import collect, submit
from ptbr_slm.serve.openai.sampling import sampling_options, unsupported
from ptbr_slm.serve.openai.stream import Delta, EventStream
from ptbr_slm.serve.served import ServedModel

router = APIRouter()


class TextPart(Body):
    """A part of a message's content; only text is read."""

    type: str
    text: str | None = None


class ChatMessage(Body):
    """A message. Other keys, `name` for one, are ignored."""

    role: str
    content: str | list[TextPart] | None = None


class ChatBody(GenerationBody):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """The old name of `max_completion_tokens`, which counts where both are there."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] | None = None
    functions: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None


@router.post("/v1/chat/completions")
async def create_chat_completion(request: Request, body: ChatBody) -> Response:
    """Answer a conversation."""
    served: ServedModel = request.app.state.models.find(body.model)
    options = _options(body, served)
    n = options.get("n", 1)
    served.warn_if_untuned()  # raises E_CHAT_TEMPLATE
    messages = [message.model_dump(exclude_none=True) for message in body.messages]
    call = await submit(request, served, lambda: [ChatPrompt(messages)], options)
    if body.stream:
        asked = body.stream_options
        with_usage = asked is not None and asked.include_usage
        envelope = Envelope(served, "chat.completion.chunk", "chatcmpl")
        return EventStream(
            call, n, ChatDeltas(), envelope, (lambda found: usage(found, n)) if with_usage else None, n
        )
    envelope = Envelope(served, "chat.completion", "chatcmpl")
    results = await collect(request, call, n)
    choices = [_choice(index, result) for index, result in enumerate(results)]
    return JSONResponse(envelope(choices, usage=usage(results, n)))


def _options(body: ChatBody, served: ServedModel) -> dict[str, Any]:
    if body.tools or body.functions or body.tool_choice not in (None, "none", "auto"):
        raise unsupported(
            "functions" if body.functions else "tools",
            "Este modelo não chama ferramentas: envie o pedido sem tools.",
            code="tools_not_supported",
        )
    asked = sampling_options(body, served.model.engine.tokenizer.vocab_size)
    count = body.max_completion_tokens or body.max_tokens
    if count is not None:
        asked["max_new_tokens"] = count
    return {**CHAT_SAMPLING, **asked}


def _choice(index: int, result: GenerationResult) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": result.text, "refusal": None},
        "logprobs": None,
        "finish_reason": finish_reason(result),
        "stop_reason": stop_reason(result),
    }


class ChatDeltas:
    """The choices of a chat's chunks: the role first, then content, then why it ended."""

    def __init__(self) -> None:
        self._begun: set[int] = set()

    def __call__(self, delta: Delta) -> list[dict[str, Any]]:
        """The chunks for what has come of one text."""
        found = []
        if delta.index not in self._begun:
            self._begun.add(delta.index)
            found.append(self._part(delta.index, {"role": "assistant", "content": ""}))
        if delta.text:
            found.append(self._part(delta.index, {"content": delta.text}))
        if delta.result is not None:
            reason, stop = finish_reason(delta.result), stop_reason(delta.result)
            found.append(self._part(delta.index, {}) | {"finish_reason": reason, "stop_reason": stop})
        return found

    @staticmethod
    def _part(index: int, delta: dict[str, Any]) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
