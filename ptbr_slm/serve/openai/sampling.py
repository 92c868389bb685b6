"""From a body's fields to the options of `Model.submit`; what cannot be honoured is refused by name."""

from __future__ import annotations

import re
from typing import Any

from ptbr_slm.serve.openai.body import (
    GenerationBody,
    JsonObjectFormat,
    JsonSchemaFormat,
    RegexFormat,
    StructuredOutputs,
)
from ptbr_slm.serve.openai.refusals import invalid, refuse_what_is_not_done

ANY_OBJECT = {"type": "object"}
"""The schema of a JSON object, whatever is in it."""


def sampling_options(body: GenerationBody, vocab_size: int) -> dict[str, Any]:
    """Options for `Model.submit` of what the body gives; what it leaves out keeps the model's default.

    Raises ApiError 400.
    """
    refuse_what_is_not_done(body)
    if body.stream_options is not None and not body.stream:
        raise invalid("stream_options", "stream_options só vale com stream: true.")
    same = ("n", "temperature", "top_p", "presence_penalty", "frequency_penalty", "min_p")
    vllm = ("repetition_penalty", "ignore_eos", "min_tokens")
    options = {name: value for name in same + vllm if (value := getattr(body, name)) is not None}
    if body.seed is not None:
        options["seed"] = body.seed % 2**63
    if body.top_k is not None:
        options["top_k"] = max(0, body.top_k)
    if body.stop:
        options["stop"] = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)
    if body.stop_token_ids:
        options["stop_token_ids"] = tuple(body.stop_token_ids)
    if body.logit_bias:
        options["logit_bias"] = _bias(body.logit_bias, vocab_size)
    return options | _form(body)


def _bias(bias: dict[str, float], vocab_size: int) -> dict[int, float]:
    found = {}
    for key, value in bias.items():
        if not re.fullmatch(r"[0-9]{1,9}", key) or int(key) >= vocab_size:
            raise invalid(
                "logit_bias",
                f"logit_bias leva ids de tokens, de 0 a {vocab_size - 1}, e não {key[:40]!r}.",
            )
        found[int(key)] = value
    return found


def _form(body: GenerationBody) -> dict[str, Any]:
    """`json_schema` or `regex`, however the client asks for it; at most one."""
    found = [*_response_format(body), *_guided(body)]
    if len(found) > 1:
        raise invalid("response_format", "Peça uma só forma: response_format, ou structured_outputs.")
    return found[0] if found else {}


def _response_format(body: GenerationBody) -> list[dict[str, Any]]:
    form = body.response_format
    if isinstance(form, JsonObjectFormat):
        return [{"json_schema": ANY_OBJECT}]
    if isinstance(form, JsonSchemaFormat):
        schema = form.json_schema.schema_
        return [{"json_schema": ANY_OBJECT if schema is None else schema}]
    return [{"regex": form.regex}] if isinstance(form, RegexFormat) else []


def _guided(body: GenerationBody) -> list[dict[str, Any]]:
    """vLLM's forms: `structured_outputs`, and before 0.12 a `guided_` field each."""
    asked = body.structured_outputs or StructuredOutputs.model_validate({})
    found: list[dict[str, Any]] = []
    found += [{"json_schema": each} for each in (asked.json_, body.guided_json) if each is not None]
    found += [{"regex": each} for each in (asked.regex, body.guided_regex) if each is not None]
    found += [{"regex": _one_of(each)} for each in (asked.choice, body.guided_choice) if each is not None]
    return found + ([{"json_schema": ANY_OBJECT}] if asked.json_object else [])


def _one_of(choices: list[str]) -> str:
    if not choices or not all(choices):
        raise invalid("structured_outputs", "choice deve ser uma lista de textos que não sejam vazios.")
    return "|".join(map(re.escape, choices))
