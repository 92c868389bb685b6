"""/v1/responses, without a memory: OpenAI's newer form of a conversation, for clients that speak only it.

Nothing is stored: `store` is ignored and answered with false, and what would need a stored answer is refused.
The conversation comes whole in `input` each time; it goes through the model's template as in the chat route,
with the same sampling where the body leaves it out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from ptbr_slm.chat import Message
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.prompt import CHAT_SAMPLING, ChatPrompt
from ptbr_slm.serve.errors import ApiError
from ptbr_slm.serve.openai.body import Body, JsonObjectFormat, NamedSchema, TextFormat, only
from ptbr_slm.serve.openai.documented import generating
from ptbr_slm.serve.openai.generation import Generation, collect, interrupted, submit
from ptbr_slm.serve.openai.refusals import invalid, refuse_what_is_not_done, template_refusal, unsupported
from ptbr_slm.serve.openai.response_object import ResponseEvents, ResponseObject
from ptbr_slm.serve.openai.sampling import ANY_OBJECT
from ptbr_slm.serve.openai.stream import ServerSentEvents, deltas, event
from ptbr_slm.serve.served import ServedModel

router = APIRouter()

_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
"""`developer` is what OpenAI calls the system's messages since its reasoning models."""

_NO_TOOLS = "Este modelo não chama ferramentas."
_NO_MEMORY = "O servidor não guarda respostas nem conversas: envie a conversa inteira em input."


class SchemaFormat(NamedSchema):
    """JSON that fits a schema; unlike the chat route's, in one object."""

    type: Literal["json_schema"]


class TextOptions(Body):
    """`text`."""

    format: Annotated[TextFormat | JsonObjectFormat | SchemaFormat, Field(discriminator="type")] | None = None


class ContentPart(Body):
    """A part of a message. Only `input_text`, `output_text` and `text` are read; what is not is refused."""

    type: str
    text: str | None = None


class InputItem(Body):
    """A message, whose `type` may be absent; `reasoning` is passed over, and what is neither is refused."""

    type: str | None = None
    role: str | None = None
    content: str | list[ContentPart] | None = None


class ResponsesBody(Body):
    """The body of /v1/responses. What is not here is ignored."""

    model: str | None = None
    """The first model of the server where it is absent."""
    input: str | Annotated[list[InputItem], Field(min_length=1)]
    """A question, or a conversation whose last message is the user's."""
    instructions: str | None = None
    """A system's message before all others."""
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(ge=1e-6, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    """As in the other routes; OpenAI has none here."""
    text: TextOptions | None = None
    truncation: Literal["auto", "disabled"] | None = None
    """`auto`: where the conversation does not fit, its oldest exchanges are left out."""
    stream: bool | None = None
    metadata: dict[str, str] | None = None
    """Comes back as it is."""

    tools: list[dict[str, Any]] | None = only([], why=_NO_TOOLS)
    tool_choice: str | dict[str, Any] | None = only("none", "auto", why=_NO_TOOLS)
    previous_response_id: str | None = only(why=_NO_MEMORY)
    conversation: str | dict[str, Any] | None = only(why=_NO_MEMORY)
    prompt: dict[str, Any] | None = only(why=_NO_MEMORY)
    background: bool | None = only(False, why="Não há respostas em segundo plano: use stream.")
    moderation: dict[str, Any] | None = only(why="O servidor não modera textos.")
    context_management: list[dict[str, Any]] | None = only(
        [], why='O servidor não resume conversas; truncation: "auto" deixa fora o começo.'
    )
    top_logprobs: int | None = only(0, why="As probabilidades são de /v1/chat/completions.")


class InputDetails(BaseModel):
    """Of the prompt's tokens, those that were in the cache, and those that are now."""

    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(BaseModel):
    """None of the generated tokens is hidden."""

    reasoning_tokens: int


class ResponseUsage(BaseModel):
    """Tokens of a request."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ResponseAnswer(BaseModel):
    """What /v1/responses answers, in part: it repeats the settings too."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: str
    created_at: int
    status: str
    model: str
    output: list[dict[str, Any]]
    incomplete_details: dict[str, str] | None
    usage: ResponseUsage


@router.post("/v1/responses", responses=generating(ResponseAnswer))
async def create_response(request: Request, body: ResponsesBody) -> Response:
    """Answer a conversation."""
    served: ServedModel = request.app.state.models.find(body.model)
    try:
        served.warn_if_untuned()
    except SlmError as error:
        raise template_refusal(error, served.model, "input") from error
    refuse_what_is_not_done(body)
    prompt = ChatPrompt(_messages(body), whole=body.truncation != "auto")
    options = _options(body, served.model.engine.config.max_seq_len)
    generation = await submit(request, served, lambda: [prompt], options, field="input")
    response = ResponseObject(_settings(body, served, options))
    if body.stream:
        return ResponseStream(generation, response)
    (result,) = await collect(generation)
    return JSONResponse(response.ended(result))


class ResponseStream(ServerSentEvents):
    """The events of an answer. OpenAI's end with the last of them: there is no `[DONE]`."""

    last = b""

    def __init__(self, generation: Generation, response: ResponseObject) -> None:
        super().__init__(generation)
        self._wire = ResponseEvents(response)

    async def events(self) -> AsyncGenerator[bytes]:
        """All events of an answer that ends well."""
        yield _written(self._wire.begin())
        async with aclosing(deltas(self.generation)) as arrivals:
            async for (delta,) in arrivals:
                text = self._wire.text(delta.text)
                if delta.result is not None:
                    yield _written(text + self._wire.end(delta.result))
                    return
                yield _written(text)
        raise interrupted()

    def failure(self, fault: ApiError) -> bytes:
        """The events of one that does not."""
        return _written(self._wire.fail(fault))


def _written(events: list[dict[str, Any]]) -> bytes:
    return b"".join([f"event: {each['type']}\n".encode() + event(each) for each in events])


def _messages(body: ResponsesBody) -> list[Message]:
    """The conversation. Raises ApiError 400 for what is no text of a message."""
    head = [Message("system", body.instructions)] if body.instructions else []
    if isinstance(body.input, str):
        return [*head, Message("user", body.input)]
    items = [(f"input[{number}]", item) for number, item in enumerate(body.input)]
    return head + [_message(item, where) for where, item in items if item.type != "reasoning"]


def _message(item: InputItem, where: str) -> Message:
    if item.type not in (None, "message"):
        tools = item.type.startswith(("function_", "custom_tool_", "mcp_")) or item.type.endswith("_call")
        raise unsupported(
            f"{where}.type",
            f"Um item do tipo {item.type[:40]!r} não é aceito: só mensagens.",
            code="tools_not_supported" if tools else "unsupported_parameter",
        )
    if item.role not in _ROLES:
        raise invalid(f"{where}.role", f"O papel de uma mensagem é um de: {', '.join(_ROLES)}.")
    content = item.content
    if isinstance(content, list):
        content = "\n".join([_text(part, f"{where}.content") for part in content])
    if content is None:
        raise invalid(f"{where}.content", "Falta o conteúdo da mensagem.")
    return Message(_ROLES[item.role], content)


def _text(part: ContentPart, where: str) -> str:
    if part.type not in ("input_text", "output_text", "text"):
        raise unsupported(where, f"Uma parte do tipo {part.type[:40]!r} não é aceita: o modelo só lê texto.")
    if part.text is None:
        raise invalid(where, "Falta o texto de uma parte da mensagem.")
    return part.text


def _options(body: ResponsesBody, context: int) -> dict[str, Any]:
    """Options for `Model.submit`."""
    options: dict[str, Any] = {**CHAT_SAMPLING, "max_new_tokens": body.max_output_tokens or context}
    same = ("temperature", "top_p", "seed")
    options |= {name: value for name in same if (value := getattr(body, name)) is not None}
    form = body.text and body.text.format
    if isinstance(form, JsonObjectFormat):
        options["json_schema"] = ANY_OBJECT
    elif isinstance(form, SchemaFormat):
        options["json_schema"] = ANY_OBJECT if form.schema_ is None else form.schema_
    return options


def _settings(body: ResponsesBody, served: ServedModel, options: dict[str, Any]) -> dict[str, Any]:
    """What the answer repeats of the request."""
    form = body.text and body.text.format
    shown = {"type": "text"} if form is None else form.model_dump(by_alias=True, exclude_none=True)
    return {
        "model": served.name,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "parallel_tool_calls": True,
        "temperature": options["temperature"],
        "text": {"format": shown},
        "tool_choice": "none" if body.tool_choice == "none" else "auto",
        "tools": [],
        "top_p": options["top_p"],
        "truncation": body.truncation or "disabled",
    }
