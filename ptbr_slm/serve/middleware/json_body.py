"""A JSON body read strictly: one meaning, bounded depth, finite numbers, valid Unicode."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from ptbr_slm.serve.errors import ApiError

DEEPEST = 64
"""Levels of lists and objects in a body. The deepest that has a use is a JSON schema's, under 20."""


def check_json_object(body: bytes) -> None:
    """Refuse, with 400, what is no JSON object or would mean different things to different readers."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(f"O corpo não é UTF-8 válido (byte {error.start}).", "invalid_utf8") from None
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"linha {error.lineno}, coluna {error.colno}"
        raise _refused(f"O corpo não é JSON válido ({where}).", "invalid_json") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:  # an integer of more digits than Python converts
        raise _refused("O corpo tem um número longo demais.", "invalid_json") from None
    if not isinstance(value, dict):
        raise _refused("O corpo deve ser um objeto JSON: {...}.", "invalid_json")
    _check_values(value)


def _check_values(value: Any) -> None:
    """Level by level, so that the depth of the body is not that of the stack."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST + 1:
            raise _too_deep()
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner.extend(each)
                inner.extend(each.values())
            elif isinstance(each, list):
                inner.extend(each)
            elif isinstance(each, float) and not math.isfinite(each):  # 1e999
                _no_constant("")
            elif isinstance(each, str) and not _is_unicode(each):
                raise _refused("O corpo tem meio caractere Unicode (\\ud800 a \\udfff).", "invalid_json")
        level = inner


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ApiError(
            400, f"O corpo tem a chave {twice[:40]!r} duas vezes.", code="invalid_json", param=twice[:40]
        )
    return found


def _no_constant(_name: str) -> NoReturn:
    raise _refused("O corpo tem um número que não é finito (NaN, Infinity).", "invalid_json")


def _too_deep() -> ApiError:
    return _refused(f"O corpo tem mais de {DEEPEST} níveis de listas e objetos.", "invalid_json")


def _refused(message: str, code: str) -> ApiError:
    return ApiError(400, message, code=code)
