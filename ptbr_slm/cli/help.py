"""How `--help` looks: in Portuguese, options by heading, examples last, as wide as the terminal.

Typer writes "Usage", "[default: ...]" and the kinds of values in English and translates none of them
(typer/core.py and typer/_click/formatting.py at 0.29.2): the whole text is ours (`help_layout`,
`parameters`), and typer only parses.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar, TextIO, cast

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from ptbr_slm.cli.help_layout import Layout, Rows
from ptbr_slm.cli.parameters import Command, Parameter, argument_usage, help_row, option_usage
from ptbr_slm.cli.terminal import columns, wants_colour

ARGUMENTS, OPTIONS, LAST, VERBS = "Argumentos", "Opções", "Geral", "Comandos"
_HELP = "Mostra esta ajuda."


class HelpCommand(TyperCommand):
    """A verb with this help."""

    examples: ClassVar[Mapping[str, str]] = {}
    """Command line -> what it is for. Set by `verb_class`."""

    def get_help(self, ctx: Any) -> str:
        """The help, for standard output."""
        return _for_stdout(self, ctx)

    def get_short_help_str(self, limit: int = 45) -> str:
        """The first paragraph, whole."""
        return summary(self)


class VerbWithMembers(HelpCommand):
    """A verb that has arguments of its own and members too: `eval MODELO` and `eval compare A B`.

    Only its first word can name a member; `./compare` is a folder of that name.
    """

    members: ClassVar[typer.Typer]
    """Set by `verb_class`."""

    @cached_property
    def commands(self) -> dict[str, Any]:
        """The members by their names."""
        return dict(typer.main.get_group(self.members).commands)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the verb, or of the member that the first word names."""
        member = self.commands.get(args[0]) if args else None
        if member is None:
            return super().make_context(info_name, args, parent, **extra)
        return member.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)


def verb_class(examples: Mapping[str, str], members: typer.Typer | None = None) -> type[HelpCommand]:
    """The class of a verb that has these examples, and these members."""
    if members is None:
        return type("Verb", (HelpCommand,), {"examples": examples})
    return type("Verb", (VerbWithMembers,), {"examples": examples, "members": members})


class HelpGroup(TyperGroup):
    """A group of verbs, with the same help."""

    examples: ClassVar[Mapping[str, str]] = {}
    headings: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Heading -> the verbs below it, where there is more than one heading."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        order = [verb for verbs in self.headings.values() for verb in verbs]
        self.commands = dict(sorted(self.commands.items(), key=lambda item: order.index(item[0]))
                             if order else self.commands)  # fmt: skip

    def get_help(self, ctx: Any) -> str:
        """The help, for standard output."""
        return _for_stdout(self, ctx)

    def get_short_help_str(self, limit: int = 45) -> str:
        """The first paragraph, whole."""
        return summary(self)


def help_text(command: Command, ctx: Any, stream: TextIO) -> str:
    """The whole help of a command, for this stream; ends without a line break."""
    layout = Layout(columns(), wants_colour(stream, os.environ))
    parts = [
        layout.usage(list(_usages(command, ctx))),
        layout.paragraphs(inspect.cleandoc(command.help or "")),
    ]
    sections = _sections(command, ctx)
    last = sections.pop(LAST, [])
    members = _members(command)
    longest = max((len(name) for rows in members.values() for name, _ in rows), default=0)
    parts += [layout.section(heading, rows) for heading, rows in sections.items() if rows]
    parts += [layout.section(heading, rows, longest) for heading, rows in members.items() if rows]
    parts += [layout.section(LAST, last)] if last else []
    if examples := getattr(command, "examples", None):
        parts.append(layout.examples(examples))
    return "\n\n".join(parts)


def summary(command: Command) -> str:
    """What a command does, in one line: the first paragraph of its help."""
    return " ".join(inspect.cleandoc(command.help or "").split("\n\n")[0].split()).rstrip(".")


def _for_stdout(command: Command, ctx: Any) -> str:
    ctx.color = wants_colour(sys.stdout, os.environ)  # else typer takes colours out before it prints
    return help_text(command, ctx, sys.stdout)


def _usages(command: Command, ctx: Any) -> Iterator[str]:
    path = ctx.command_path
    if isinstance(command, TyperGroup):
        yield f"{path} COMANDO [OPÇÕES]"
        return
    parameters = [cast(Parameter, parameter) for parameter in command.get_params(ctx)]
    arguments = [argument_usage(p) for p in parameters if p.param_type_name == "argument"]
    needed = [option_usage(command, p) for p in parameters if p.param_type_name == "option" and p.required]
    yield " ".join([path, *arguments, *needed, "[OPÇÕES]"])
    if isinstance(command, VerbWithMembers):
        for name, member in command.commands.items():
            yield from _usages(member, member.context_class(member, info_name=f"{path} {name}"))


def _sections(command: Command, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Heading -> rows: arguments, then plain options, then the other headings as they come."""
    sections: dict[str, list[tuple[str, str]]] = {ARGUMENTS: [], OPTIONS: []}
    for parameter in command.get_params(ctx):
        if not getattr(parameter, "hidden", False):
            shown = cast(Parameter, parameter)
            row = ("-h, --help", _HELP) if shown.name == "help" else help_row(command, shown)
            sections.setdefault(_heading(shown), []).append(row)
    return sections


def _members(command: Command) -> dict[str, Rows]:
    """Heading -> the verbs below it."""
    verbs = {
        name: verb for name, verb in (getattr(command, "commands", None) or {}).items() if not verb.hidden
    }
    headings = getattr(command, "headings", None) or {VERBS: tuple(verbs)}
    return {
        heading: [(name, f"{summary(verbs[name])}.") for name in names] for heading, names in headings.items()
    }


def _heading(parameter: Parameter) -> str:
    if not isinstance(parameter, TyperOption):
        return ARGUMENTS
    if parameter.name == "help":
        return LAST
    return str(parameter.rich_help_panel or OPTIONS)
