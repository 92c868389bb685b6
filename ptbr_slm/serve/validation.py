"""A body that pydantic refuses, in OpenAI's terms: 400, `param`, and a sentence in Portuguese."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ptbr_slm.serve.errors import ApiError

_MEMBERS = frozenset({"str", "int", "float", "bool", "bytes", "dict", "list", "none"})
"""Members of a union, as the last part of a place; others are no words (`list[int]`, `function-after[…]`)."""

MOST_ERRORS = 3
LONGEST_ERROR = 200
"""Characters. vLLM once answered 4.5 kB of body with 23.6 MB of errors: a union tells one for each member of
each element."""

_SENTENCES = {
    "missing": "é obrigatório",
    "extra_forbidden": "não existe",
    "int_type": "deve ser um número inteiro",
    "int_parsing": "deve ser um número inteiro",
    "int_from_float": "deve ser um número inteiro",
    "float_type": "deve ser um número",
    "float_parsing": "deve ser um número",
    "finite_number": "deve ser um número finito",
    "string_type": "deve ser um texto",
    "string_too_short": "deve ter ao menos {min_length} caractere(s)",
    "string_too_long": "deve ter no máximo {max_length} caracteres",
    "string_pattern_mismatch": "deve ter a forma {pattern}",
    "bool_type": "deve ser true ou false",
    "bool_parsing": "deve ser true ou false",
    "list_type": "deve ser uma lista",
    "too_short": "deve ter ao menos {min_length} elemento(s)",
    "too_long": "deve ter no máximo {max_length} elementos",
    "dict_type": "deve ser um objeto",
    "model_type": "deve ser um objeto",
    "model_attributes_type": "deve ser um objeto",
    "none_required": "deve ser null",
    "greater_than": "deve ser maior que {gt}",
    "greater_than_equal": "deve ser no mínimo {ge}",
    "less_than": "deve ser menor que {lt}",
    "less_than_equal": "deve ser no máximo {le}",
    "literal_error": "deve ser um destes: {expected}",
    "enum": "deve ser um destes: {expected}",
}
"""pydantic's kind of error -> what is said of the field."""


def validation_error(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """The answer for what pydantic found: the first errors, none of the input."""
    told = list(dict.fromkeys(_sentence(error) for error in errors[: 10 * MOST_ERRORS]))[:MOST_ERRORS]
    if len(errors) > len(told):
        told.append("…")
    first = errors[0] if errors else {}
    missing = first.get("type") == "missing"
    return ApiError(
        400,
        " ".join(told),
        code="missing_required_parameter" if missing else "invalid_value",
        param=_field(first)[:80] or None,
    )


def _sentence(error: Mapping[str, Any]) -> str:
    field = _field(error)
    kind = str(error.get("type", ""))
    form = _SENTENCES.get(kind)
    if form is None:  # a validator of our own says it in Portuguese; the rest stays as pydantic has it
        said = str(error.get("msg", "não é válido")).removeprefix("Value error, ")
    else:
        said = form.format_map(_Known(error.get("ctx") or {}))
    return f"{field or 'O corpo'}: {said}."[:LONGEST_ERROR]


class _Known(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "…"


def _field(error: Mapping[str, Any]) -> str:
    """messages.0.content for ("body", "messages", 0, "content", "str"): without the members of unions."""
    parts = [str(part) for part in error.get("loc", ()) if part not in ("body", "query", "path")]
    while len(parts) > 1 and (parts[-1] in _MEMBERS or not parts[-1].replace("_", "a").isalnum()):
        parts.pop()
    return ".".join(parts[:6])[:80]
