"""What the bodies of both generating routes share: fields, their types and their bounds.

Types are strict: `"1"` is no number, and neither are NaN and Infinity, which Python's JSON reader lets pass.
Every field may be null, which is as if it were absent: clients send what they do not set as null. Fields that
are not here are ignored, as in every server: OpenAI adds some each month, and clients send them unasked
(`user`, `store`, `metadata`, `service_tier`, `reasoning_effort`, `verbosity`, `prompt_cache_key`,
`safety_identifier`, `prediction`, ...). What would change the answer and is not done here is a field, so that
it can be refused by name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
StopText = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class Body(BaseModel):
    """A JSON object from a client."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, use_attribute_docstrings=True)


def only(*values: JsonValue, why: str) -> Any:
    """A field that is read to be refused (`refuse_what_is_not_done`) unless it is one of these, or null.

    why: the sentence for that, which the OpenAPI document has too.
    """
    return Field(None, description=why, json_schema_extra={"enum": [*values, None]})


_NO_GRAMMAR = "Gramáticas não são aceitas: use json_schema ou regex."


class StreamOptions(Body):
    """`stream_options`."""

    include_usage: bool | None = None
    """A last chunk with `usage` and no choices."""
    continuous_usage_stats: bool | None = None
    """vLLM's: `usage` so far in every chunk."""


class TextFormat(Body):
    """No form at all."""

    type: Literal["text"]


class JsonObjectFormat(Body):
    """Any JSON object."""

    type: Literal["json_object"]


class NamedSchema(Body):
    """`response_format.json_schema`."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "schema"
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None
    """The form is kept to whatever this says."""


class JsonSchemaFormat(Body):
    """JSON that fits a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class RegexFormat(Body):
    """Ours: the whole text matches a regular expression."""

    type: Literal["regex"]
    regex: Annotated[str, StringConstraints(min_length=1)]


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat | RegexFormat, Field(discriminator="type")
]


class StructuredOutputs(Body):
    """vLLM's `structured_outputs`, one of them."""

    json_: dict[str, Any] | str | None = Field(None, alias="json")
    regex: str | None = None
    choice: list[str] | None = None
    json_object: bool | None = None
    grammar: str | None = only(why=_NO_GRAMMAR)
    structural_tag: str | None = only(why=_NO_GRAMMAR)


class GenerationBody(Body):
    """Sampling, ends and forms: the names of OpenAI, then those of vLLM."""

    model: str | None = None
    """The first model of the server where it is absent."""
    n: Annotated[int, Field(ge=1, le=64)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63)] | None = None
    """Taken modulo 2**63. (The OpenAPI document holds bounds as floats: 2**63 - 1 would be a lie there.)"""
    stop: StopText | Annotated[list[StopText], Field(max_length=64)] | None = None
    """Up to 64 texts of up to 1,000 characters (OpenAI: 4)."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(ge=1e-6, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    """Ids of tokens, as text, to what is added to their logits."""
    response_format: ResponseFormat | None = None

    top_k: Annotated[int, Field(ge=-1, le=10_000_000)] | None = None
    """-1 and 0 keep all."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64)] | None = None
    prompt_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = only(why=_NO_GRAMMAR)
    grammar: str | None = only(why=_NO_GRAMMAR)
    use_beam_search: bool | None = only(False, why="Este servidor não faz busca em feixe (beam search).")
    include_stop_str_in_output: bool | None = only(False, why="O texto que faz parar não vai na resposta.")
    skip_special_tokens: bool | None = only(True, why="Tokens especiais não vão no texto: veja token_ids.")
    allowed_token_ids: list[int] | None = only([], why="Use logit_bias, ou response_format com regex.")
    bad_words: list[str] | None = only([], why="Use logit_bias, por token.")
