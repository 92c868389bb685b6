"""/v1/chat/completions: the answer to a conversation, in the form of the model's own template.

Where a body leaves sampling out, it is `CHAT_SAMPLING`'s, as for every answer of this product, and the answer
goes on until the model ends it or the context is full, as at OpenAI. A conversation that does not fit is an
error, as at OpenAI, vLLM and llama.cpp: a server that forgot the beginning of a conversation unasked would
answer another question than its client thinks. `truncation: "auto"`, the field of OpenAI's Responses, asks
for that; the answer then tells how many messages were left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.prompt import CHAT_SAMPLING, ChatPrompt
from ptbr_slm.runtime.results import GenerationResult, TokenLogprob
from ptbr_slm.serve.openai.answers import Envelope, finish_reason, stop_reason, usage
from ptbr_slm.serve.openai.body import Body, GenerationBody, only
from ptbr_slm.serve.openai.documented import ChatAnswer, generating
from ptbr_slm.serve.openai.generation import Generation, collect, submit
from ptbr_slm.serve.openai.logprobs import chat_logprobs
from ptbr_slm.serve.openai.refusals import invalid, template_refusal
from ptbr_slm.serve.openai.sampling import sampling_options
from ptbr_slm.serve.openai.stream import Delta, EventStream
from ptbr_slm.serve.served import ServedModel

router = APIRouter()


_NO_TOOLS = "Este modelo não chama ferramentas."
_NEXT_MESSAGE = "O modelo só escreve a próxima mensagem; para continuar um texto há /v1/completions."


class ContentPart(Body):
    """A part of a message's content. Only text is read; what is not is refused."""

    type: str
    text: str | None = None


class ChatMessage(Body):
    """A message: `system`, `user` or `assistant`. Other keys, `name` for one, are ignored."""

    role: str
    content: str | list[ContentPart] | None = None


class ChatBody(GenerationBody):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    """The last one is the user's."""
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """The old name of `max_completion_tokens`, which counts where both are there."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """With `logprobs: true`."""
    truncation: Literal["auto", "disabled"] | None = None
    """`auto`: where the conversation does not fit, its oldest exchanges are left out."""
    tools: list[dict[str, Any]] | None = only([], why=_NO_TOOLS)
    functions: list[dict[str, Any]] | None = only([], why=_NO_TOOLS)
    tool_choice: str | dict[str, Any] | None = only("none", "auto", why=_NO_TOOLS)
    function_call: str | dict[str, Any] | None = only("none", "auto", why=_NO_TOOLS)
    modalities: list[str] | None = only(["text"], [], why="O modelo só escreve texto.")
    audio: dict[str, Any] | None = only(why="O modelo só escreve texto.")
    web_search_options: dict[str, Any] | None = only(why="O servidor não busca na internet.")
    echo: bool | None = only(False, why=_NEXT_MESSAGE)
    continue_final_message: bool | None = only(False, why=_NEXT_MESSAGE)
    add_generation_prompt: bool | None = only(True, why=_NEXT_MESSAGE)
    chat_template: str | None = only(why="O modelo de conversa é o da pasta do modelo.")
    prompt_logprobs: int | None = only(why="As probabilidades do texto inicial são de /v1/completions.")


@router.post("/v1/chat/completions", responses=generating(ChatAnswer))
async def create_chat_completion(request: Request, body: ChatBody) -> Response:
    """Answer a conversation."""
    served: ServedModel = request.app.state.models.find(body.model)
    try:
        served.warn_if_untuned()
    except SlmError as error:
        raise template_refusal(error, served.model, "messages") from error
    options = _options(body, served)
    messages = [message.model_dump(exclude_none=True) for message in body.messages]
    prompt = ChatPrompt(messages, whole=body.truncation != "auto")
    generation = await submit(request, served, lambda: [prompt], options, field="messages")
    choices = ChatChoices(body, generation)
    if body.stream:
        envelope = Envelope(served, "chat.completion.chunk", "chatcmpl")
        return EventStream(generation, envelope, choices.of_delta, body.stream_options)
    results = await collect(generation)
    envelope = Envelope(served, "chat.completion", "chatcmpl")
    found = [choices.of_result(index, result) for index, result in enumerate(results)]
    return JSONResponse(envelope(found, usage=usage(results, generation.n)))


def _options(body: ChatBody, served: ServedModel) -> dict[str, Any]:
    """Options for `Model.submit`. Raises ApiError 400."""
    if body.top_logprobs and not body.logprobs:
        raise invalid("top_logprobs", "top_logprobs só vale com logprobs: true.")
    engine = served.model.engine
    asked = sampling_options(body, engine.tokenizer.vocab_size)
    count = body.max_completion_tokens or body.max_tokens
    asked["max_new_tokens"] = engine.config.max_seq_len if count is None else count
    if body.logprobs:
        asked["logprobs"] = body.top_logprobs or 0
    return {**CHAT_SAMPLING, **asked}


class ChatChoices:
    """The choices of an answer, or of the chunks of a stream."""

    def __init__(self, body: ChatBody, generation: Generation) -> None:
        self._body = body
        self._tokenizer = generation.served.model.engine.tokenizer
        self._prompt = generation.prompts[0]
        self._begun: set[int] = set()

    def of_result(self, index: int, result: GenerationResult) -> dict[str, Any]:
        """A whole answer."""
        found = {
            "index": index,
            "message": {"role": "assistant", "content": result.text, "refusal": None},
            "logprobs": None,
            **_end(result),
        }
        if self._body.logprobs:
            found["logprobs"] = self._logprobs(result.logprobs or ())
        if self._body.return_token_ids:
            found |= {"prompt_token_ids": list(self._prompt), "token_ids": list(result.tokens)}
        return found

    def of_delta(self, delta: Delta) -> list[dict[str, Any]]:
        """The role alone, then content, then why it ended, in chunks of their own: as llama.cpp's tests and
        strict clients want it.
        """
        found = []
        if delta.index not in self._begun:
            self._begun.add(delta.index)
            found.append(self._chunk(delta.index, {"role": "assistant", "content": ""}))
            if self._body.return_token_ids:
                found[-1]["prompt_token_ids"] = list(self._prompt)
        if delta.text or delta.logprobs or (self._body.return_token_ids and delta.tokens):
            found.append(self._chunk(delta.index, {"content": delta.text}))
            if self._body.logprobs:
                found[-1]["logprobs"] = self._logprobs(delta.logprobs)
            if self._body.return_token_ids:
                found[-1]["token_ids"] = delta.tokens
        if delta.result is not None:
            found.append(self._chunk(delta.index, {}) | _end(delta.result))
        return found

    def _logprobs(self, known: Sequence[TokenLogprob]) -> dict[str, Any]:
        as_ids = bool(self._body.return_tokens_as_token_ids)
        return chat_logprobs(self._tokenizer, known, ids_as_tokens=as_ids)

    @staticmethod
    def _chunk(index: int, delta: dict[str, Any]) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


def _end(result: GenerationResult) -> dict[str, Any]:
    """Why an answer ended, and what of the conversation it did not read."""
    dropped = {"dropped_messages": result.dropped_messages} if result.dropped_messages else {}
    return {"finish_reason": finish_reason(result), "stop_reason": stop_reason(result), **dropped}
