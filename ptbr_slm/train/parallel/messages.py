"""Messages between ranks, beside tensors: small values and errors, as JSON, never as pickles.

Nothing that arrives is executed, and nothing but the types below can arrive.

A value is None, a bool, a number, a text, a list, a tuple, a dictionary with texts as keys, a Path, a
torch.device, or a dataclass of this package made of them. All but the first five and lists are written as an
object with one key, which names the type.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch

from ptbr_slm.errors import CODES, EXTRA_OF, SlmError, from_os_error, missing_extra
from ptbr_slm.train.session import StopBeforeTraining

_PACKAGE = "ptbr_slm."


class RankLost(Exception):
    """The connection to another rank is lost: all ranks have to be started again."""


_WITHOUT_ANSWER: dict[str, type[BaseException]] = {
    kind.__name__: kind for kind in (KeyboardInterrupt, MemoryError, StopBeforeTraining)
}
"""Exceptions that arrive as what they are; any other but SlmError arrives as a RuntimeError."""


def encode(value: object) -> bytes:
    """`value` as JSON. Raises TypeError for what is not in the list above."""
    return json.dumps(_to_json(value)).encode("ascii")


def decode(body: bytes) -> Any:
    """What `encode` was given. Raises ValueError for a message that names another type."""
    return _from_json(json.loads(body))


def encode_error(error: BaseException) -> bytes:
    """An exception as its code (or class), message, where and hint."""
    known = _as_slm_error(error)
    if known is None:
        return encode({"code": type(error).__name__, "message": str(error), "where": "", "hint": ""})
    names = ("code", "message", "where", "hint")
    return encode(dict(zip(names, (known.code, known.message, known.where, known.hint), strict=True)))


def decode_error(body: bytes) -> BaseException:
    """The exception to raise for what `encode_error` gave."""
    fields = decode(body)
    code, message = fields["code"], fields["message"]
    if code in CODES:
        return SlmError(code, message, where=fields["where"], hint=fields["hint"])
    if code in _WITHOUT_ANSWER:
        return _WITHOUT_ANSWER[code](message)
    return RuntimeError(f"{code}: {message}")


def _as_slm_error(error: BaseException) -> SlmError | None:
    if isinstance(error, SlmError):
        return error
    if isinstance(error, OSError):
        return from_os_error(error, error.filename or "")
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRA_OF:
        return missing_extra(error.name)
    return None


def _to_json(value: object) -> object:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list():
            return [_to_json(item) for item in value]
        case tuple():
            return {"tuple": [_to_json(item) for item in value]}
        case dict() if all(isinstance(key, str) for key in value):
            return {"dict": {key: _to_json(item) for key, item in value.items()}}
        case Path():
            return {"path": str(value)}
        case torch.device():
            return {"device": str(value)}
    kind = type(value)
    if dataclasses.is_dataclass(kind) and kind.__module__.startswith(_PACKAGE):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(kind) if field.init}
        return {f"{kind.__module__}:{kind.__qualname__}": _to_json(fields)}
    raise TypeError(f"cannot send to another rank: {kind.__module__}.{kind.__qualname__}")


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, body),) = value.items()
    match kind:
        case "tuple":
            return tuple(_from_json(item) for item in body)
        case "dict":
            return {key: _from_json(item) for key, item in body.items()}
        case "path":
            return Path(body)
        case "device":
            return torch.device(body)
    return _dataclass_named(kind)(**_from_json(body))


def _dataclass_named(name: str) -> type[Any]:
    """A dataclass of this package, `module:class`, whose module this process has imported already."""
    module, _, qualname = name.partition(":")
    found = vars(sys.modules[module]).get(qualname) if module in sys.modules else None
    if module.startswith(_PACKAGE) and isinstance(found, type) and dataclasses.is_dataclass(found):
        return found
    raise ValueError(f"a message names an unknown type: {name[:80]}")
