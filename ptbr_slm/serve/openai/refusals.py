"""What is refused, in the client's terms: its names of the fields, no path, no hint for a command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from ptbr_slm.chat import parse_messages
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.prompt import ChatPrompt, Prompt, TokenPrompt
from ptbr_slm.serve.errors import ApiError
from ptbr_slm.serve.openai.body import Body

_WIRE_NAMES = {
    "max_new_tokens": "max_tokens",
    "json_schema": "response_format",
    "regex": "response_format",
    "json_schema, regex": "response_format",
}
"""What the engine calls a field, where a client calls it otherwise."""


def unsupported(param: str, message: str, code: str = "unsupported_parameter") -> ApiError:
    """A field that is known, and not done here. 400: openai-python would repeat a 501."""
    return ApiError(400, message, code=code, param=param)


def invalid(param: str, message: str) -> ApiError:
    """A value that cannot be."""
    return ApiError(400, message, code="invalid_value", param=param)


_OF_TOOLS = {"tools", "functions", "tool_choice", "function_call"}


def refuse_what_is_not_done(body: Body, where: str = "") -> None:
    """Raises ApiError 400 for a field of the body made by `only` that is not what it may be."""
    for name, field in type(body).model_fields.items():
        extra, value = field.json_schema_extra, getattr(body, name)
        if isinstance(value, Body):
            refuse_what_is_not_done(value, f"{where}{name}.")
        elif isinstance(extra, dict) and "enum" in extra and value not in cast(list[Any], extra["enum"]):
            code = "tools_not_supported" if name in _OF_TOOLS else "unsupported_parameter"
            raise unsupported(where + name, f"{where}{name} não é aceito: {field.description}", code=code)


def refusal(error: SlmError, model: Model, prompts: Sequence[Prompt], field: str) -> Exception:
    """What the engine refuses of a request; errors that are not the request's stay as they are.

    prompts: what it asked for, as far as it was made. field: where in the body they come from.
    """
    if error.code == "E_SAMPLING":
        message = error.message.replace("max_new_tokens", "max_tokens")
        return invalid(_WIRE_NAMES.get(str(error.where), str(error.where)), message)
    if error.code == "E_DEPENDENCY":
        return unsupported("response_format", f"Falta ao servidor uma biblioteca: {error.message}")
    if error.code == "E_PROMPT":
        return ApiError(400, error.message, code="invalid_prompt", param=field)
    if error.code == "E_MESSAGES":
        return ApiError(400, error.message, code="invalid_messages", param=str(error.where) or field)
    if error.code == "E_PROMPT_TOO_LONG":
        # The counts under llama.cpp's names, and OpenAI's code.
        counts = {
            "n_prompt_tokens": max((_length(model, prompt) for prompt in prompts), default=0),
            "n_ctx": model.engine.config.max_seq_len,
        }
        message = f"{error.message} {error.hint}"
        return ApiError(400, message, code="context_length_exceeded", param=field, extra=counts)
    if error.code == "E_CHAT_TEMPLATE":
        return template_refusal(error, model, field)
    return error


def template_refusal(error: SlmError, model: Model, field: str) -> ApiError:
    """There is no chat template, or it refuses the conversation."""
    try:
        model.chat_format  # noqa: B018  # raises where there is none
    except SlmError:
        message = "Este modelo não tem um modelo de conversa (chat template): use /v1/completions."
        return ApiError(400, message, code="chat_template_missing", param="model")
    return ApiError(400, error.message, code="invalid_messages", param=field)


def _length(model: Model, prompt: Prompt) -> int:
    """Tokens of a prompt."""
    if isinstance(prompt, TokenPrompt):
        return len(prompt.ids)
    if isinstance(prompt, ChatPrompt):
        return len(model.chat_format.prompt(parse_messages(prompt.messages)))
    return len(model.engine.tokenizer.encode(prompt))
