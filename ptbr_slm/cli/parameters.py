"""What a verb's options and arguments are called and what they take, in Portuguese.

Read from the verb's own signature and from the names alone: typer's words are English, and change with its
version.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.models import ParameterInfo

Command = TyperCommand | TyperGroup
Parameter = TyperOption | TyperArgument

_VALUES = {int: "N", float: "NÚMERO", Path: "CAMINHO", str: "TEXTO"}
_KINDS = {int: "um número inteiro", float: "um número", bool: "1 ou 0"}


@dataclass(frozen=True, slots=True)
class Declared:
    """A parameter as its verb's signature has it."""

    kind: object = None
    """Its type, or that of one element of a list; None where the signature does not have it."""
    default: object = None
    least: float | None = None
    most: float | None = None
    show_default: bool = True


def declared(command: Command, parameter: Parameter) -> Declared:
    """What the signature says of a parameter."""
    found = None
    if command.callback is not None:
        found = inspect.signature(command.callback).parameters.get(parameter.name or "")
    if found is None:
        return Declared()
    kind, default = found.annotation, found.default
    info: ParameterInfo | None = None
    if get_origin(kind) is Annotated:
        kind, info = get_args(kind)[:2]
    if get_origin(kind) in (Union, UnionType):
        kind = next(item for item in get_args(kind) if item is not type(None))
    if get_origin(kind) is list:
        kind = get_args(kind)[0]
    if default is inspect.Parameter.empty:
        default = None
    if not isinstance(info, ParameterInfo):
        return Declared(kind, default)
    return Declared(kind, default, info.min, info.max, info.show_default is not False)


def name_of(parameter: Parameter) -> str:
    """`--output (-o)`, or an argument as the help names it."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or (parameter.name or "").upper()).rstrip(".")
    long, *rest = sorted(parameter.opts, key=len, reverse=True)
    return f"{long} ({rest[0]})" if rest else str(long)


def value_of(command: Command, parameter: Parameter) -> str:
    """What stands for an option's value: its own word, the choices, or one for its type; "" for a switch."""
    kind = declared(command, parameter).kind
    if kind is bool or getattr(parameter, "is_flag", False):
        return ""
    if parameter.metavar:
        return str(parameter.metavar)
    return "|".join(_choices(kind)) or (_VALUES.get(kind, "VALOR") if isinstance(kind, type) else "VALOR")


def argument_usage(parameter: Parameter) -> str:
    """`MODELO`, `[NOME]` where it may be missing, `TEXTOS...` where there may be several."""
    name = name_of(parameter) + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def option_usage(command: Command, parameter: Parameter) -> str:
    """A required option on the usage line: `-o PASTA`, by its short name where it has one."""
    return f"{min(parameter.opts, key=len)} {value_of(command, parameter)}"


def help_row(command: Command, parameter: Parameter) -> tuple[str, str]:
    """(its names, what it does): a row of the help."""
    if parameter.param_type_name == "argument":
        return name_of(parameter) + ("..." if parameter.nargs == -1 else ""), _told(command, parameter)
    names = ", ".join(sorted(parameter.opts, key=len))
    if parameter.secondary_opts:
        names = f"{names} / {', '.join(parameter.secondary_opts)}"
    return f"{names} {value_of(command, parameter)}".rstrip(), _told(command, parameter)


def taken(command: Command, parameter: Parameter) -> str:
    """What the parameter takes, in words: `um número de 0 a 1`."""
    found = declared(command, parameter)
    if choices := _choices(found.kind):
        return "um destes: " + ", ".join(choices)
    words = _KINDS.get(found.kind, "outro valor") if isinstance(found.kind, type) else "outro valor"
    return f"{words} {_limits(found)}".rstrip()


def _told(command: Command, parameter: Parameter) -> str:
    """What a parameter does, then its default, limits and variable in brackets. No line ends within one."""
    found = declared(command, parameter)
    default = _shown_default(found, parameter)
    facts = [
        *(["obrigatório"] if parameter.required and parameter.param_type_name == "option" else []),
        *([f"padrão: {default}"] if default else []),
        *([_limits(found)] if _limits(found) else []),
        *([f"variável: {parameter.envvar}"] if isinstance(parameter.envvar, str) else []),
    ]
    kept = "; ".join(fact.replace(" ", "\xa0") for fact in facts)
    return f"{parameter.help or ''} [{kept}]" if facts else parameter.help or ""


def _shown_default(found: Declared, parameter: Parameter) -> str:
    """The default as one would type it; empty where there is none to type."""
    value: Any = found.default
    if isinstance(value, bool):
        return (parameter.opts if value else [""])[0] if parameter.secondary_opts else ""
    if value is None or not found.show_default or parameter.required:
        return ""
    if isinstance(value, Enum):
        return str(value.value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _limits(found: Declared) -> str:
    low, high = found.least, found.most
    if low is not None and high is not None:
        return f"de {low:g} a {high:g}"
    if low is not None:
        return f"de {low:g} em diante"
    return "" if high is None else f"até {high:g}"


def _choices(kind: object) -> list[str]:
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [str(member.value) for member in kind]
    return []
