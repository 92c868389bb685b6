"""What was typed wrong on the command line, in our three lines: no English, the same in every typer version.

typer takes its words from click or from pydantic, by version. So nothing is read from them but the names of
options and commands, and what an option takes is read from the verb's own signature.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import typer
from typer.core import TyperGroup

from ptbr_slm.cli.help import VerbWithMembers
from ptbr_slm.cli.parameters import Command, Parameter, name_of, taken
from ptbr_slm.errors import SlmError
from ptbr_slm.text import quoted

USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]
"""The base of all, of click or of typer's copy of it."""

# Exceptions of `USAGE_ERROR`, by their names: typer has a copy of click's, or click's own, by version.


class _Context(Protocol):
    command: Command


class _Error(Protocol):
    message: str


class _NoSuchOption(_Error, Protocol):
    option_name: str
    possibilities: Sequence[str] | None


class _BadOptionUsage(_Error, Protocol):
    option_name: str


class _BadParameter(_Error, Protocol):
    """Also `MissingParameter`."""

    param: Parameter | None
    ctx: _Context | None


def usage_error(error: Exception, root: Command, words: Sequence[str]) -> SlmError:
    """The E_USAGE for an exception of `USAGE_ERROR`.

    root: the click command of the whole application. words: the command line behind the program's name.
    """
    command, path = _command(root, words)
    help_line = f"Veja as opções:  {path} --help"
    match type(error).__name__:
        case "NoSuchOption":
            unknown = cast(_NoSuchOption, error)
            name = unknown.option_name
            near = list(unknown.possibilities or ()) or _near(name, _options(command))
            hint = f"Quis dizer {_either(near)}?  {help_line}" if near else help_line
            return SlmError("E_USAGE", f"a opção {name} não existe.", where=path, hint=hint)
        case "BadOptionUsage":
            return _bad_option(cast(_BadOptionUsage, error), path, help_line)
        case "MissingParameter":
            return _missing(cast(_BadParameter, error).param, path, help_line)
        case "BadParameter" if (parameter := cast(_BadParameter, error).param) is not None:
            return _bad_value(parameter, command, words, path, help_line)
    return _bad_words(cast(_Error, error).message, command, path, help_line)


def _bad_option(error: _BadOptionUsage, path: str, help_line: str) -> SlmError:
    takes_none = "does not take a value" in error.message
    what = "não leva valor" if takes_none else "precisa de um valor"
    return SlmError("E_USAGE", f"a opção {error.option_name} {what}.", where=path, hint=help_line)


def _missing(parameter: Parameter | None, path: str, help_line: str) -> SlmError:
    if parameter is None:
        return SlmError("E_USAGE", "falta um argumento.", where=path, hint=help_line)
    kind = "o argumento" if parameter.param_type_name == "argument" else "a opção"
    also = f" (ou a variável {parameter.envvar})" if isinstance(parameter.envvar, str) else ""
    return SlmError("E_USAGE", f"falta {kind} {name_of(parameter)}{also}.", where=path, hint=help_line)


def _bad_value(
    parameter: Parameter, command: Command, words: Sequence[str], path: str, help_line: str
) -> SlmError:
    value = _typed(parameter, words)
    but = "" if value is None else f", e não {value!r}"
    return SlmError("E_USAGE", f"{name_of(parameter)} leva {taken(command, parameter)}{but}.", where=path,
                    hint=help_line)  # fmt: skip


def _bad_words(message: str, command: Command, path: str, help_line: str) -> SlmError:
    """A verb that does not exist, or arguments too many. These exceptions have a text and nothing else."""
    verbs = f"Veja os comandos:  {path} --help"
    if unknown := re.search(r"No such command '(.*?)'\.", message, re.DOTALL):
        name = unknown[1]
        near = _near(name, list(_members(command)))
        hint = f"Quis dizer {_either(near)}?  {verbs}" if near else verbs
        return SlmError("E_USAGE", f"o comando {name} não existe.", where=path, hint=hint)
    if extra := re.search(r"unexpected extra arguments?(?:\(s\))? \((.*)\)", message, re.DOTALL):
        quote = "Um texto ou caminho com espaços vai entre aspas."
        return SlmError(
            "E_USAGE", f"argumentos a mais: {extra[1]}.", where=path, hint=f"{quote}  {help_line}"
        )
    if "Missing command" in message:
        return SlmError("E_USAGE", "falta o comando.", where=path, hint=verbs)
    return SlmError("E_USAGE", "não entendi o que foi digitado.", where=path, hint=help_line)


def _command(root: Command, words: Sequence[str]) -> tuple[Command, str]:
    """The command that these words name, as far as they do, and what was typed to name it."""
    command: Command = root
    path = "ptbr-slm"
    for word in words:
        found = _members(command).get(word)
        if found is None:
            break
        command, path = found, f"{path} {word}"
    return command, path


def _members(command: Command) -> Mapping[str, Command]:
    if isinstance(command, TyperGroup | VerbWithMembers):
        return cast(Mapping[str, Command], command.commands)
    return {}


def _options(command: Command) -> list[str]:
    return [name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
            if name.startswith("-")]  # fmt: skip


def _near(name: str, names: list[str]) -> list[str]:
    return difflib.get_close_matches(name, names, n=3, cutoff=0.6)


def _either(names: Sequence[str]) -> str:
    return " ou ".join(quoted(name) for name in sorted(names)[:3])


def _typed(parameter: Parameter, words: Sequence[str]) -> str | None:
    """The value that was given to an option, where it is given once; None for an argument."""
    found = []
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in parameter.opts:
            found.append(value if equals else words[index + 1] if index + 1 < len(words) else "")
        elif any(len(short) == 2 and word.startswith(short) for short in parameter.opts):
            found.append(word[2:])
    return found[0] if len(found) == 1 else None
