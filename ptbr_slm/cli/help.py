"""How `--help` looks: in Portuguese, options by heading, the same whatever the terminal.

Typer writes "Usage", "[default: ...]" and the kinds of values in English and translates none of them
(typer/core.py and typer/_click/formatting.py at 0.29.2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

ARGUMENTS, OPTIONS, LAST = "Argumentos", "Opções", "Geral"
WORDS = {
    "[default: ": "[padrão: ",
    "[env var: ": "[variável: ",
    "; default: ": "; padrão: ",
    "; required]": "; obrigatório]",
    "[required]": "[obrigatório]",
    "(dynamic)": "(calculado)",
    "<int range>": "N",
    "<int>": "N",
    "<float range>": "NÚMERO",
    "<float>": "NÚMERO",
    "<path>": "CAMINHO",
    "<str>": "TEXTO",
    "Install completion for the current shell.": "Instala as sugestões de comandos no seu shell.",
    "Show completion for the current shell, to copy it or customize the installation.": (
        "Mostra o que seria instalado, para copiar ou adaptar."
    ),
    "Show this message and exit.": "Mostra esta ajuda.",
}
"""What Typer writes -> what is shown."""


def portuguese(text: str) -> str:
    """A piece of help with Typer's words replaced."""
    for english, ours in WORDS.items():
        text = text.replace(english, ours)
    text = re.sub(r" ?<list\[\w+\]>", "", text)  # an argument that repeats says so by its dots
    return re.sub(r"<([\w|-]+)>", r"\1", text)  # a choice: `<cpu|cuda>`


class HelpCommand(TyperCommand):
    """A verb whose help is laid out by heading: arguments, plain options, panels as they come, `Geral`."""

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """`Uso: ptbr-slm VERBO [OPÇÕES] ...`."""
        _write_usage(self, ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections to `formatter`."""
        _write_options(self, ctx, formatter)


class VerbWithMembers(HelpCommand):
    """A verb that has arguments of its own and members too: `eval MODELO` and `eval compare A B`.

    Only its first word can name a member; `./compare` is a folder of that name.
    """

    members: ClassVar[typer.Typer]
    """Set by `with_members`."""

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

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options and the members to `formatter`."""
        _write_options(self, ctx, formatter)
        _write_verbs(self.commands, formatter)


def with_members(members: typer.Typer) -> type[VerbWithMembers]:
    """The class of a verb that has these members."""
    return type("Verb", (VerbWithMembers,), {"members": members})


class HelpGroup(TyperGroup):
    """A group of verbs, with the same help."""

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """`Uso: ptbr-slm [OPÇÕES] COMANDO [ARGUMENTOS]...`."""
        _write_usage(self, ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options and the verbs to `formatter`."""
        _write_options(self, ctx, formatter)
        _write_verbs(self.commands, formatter)


def _write_usage(command: TyperCommand | TyperGroup, ctx: Any, formatter: Any) -> None:
    words = {"[OPTIONS]": "[OPÇÕES]", "COMMAND [ARGS]...": "COMANDO [ARGUMENTOS]..."}
    pieces = [words.get(piece, piece) for piece in command.collect_usage_pieces(ctx)]
    formatter.write_usage(ctx.command_path, " ".join(pieces), prefix="Uso: ")


def _write_options(command: TyperCommand | TyperGroup, ctx: Any, formatter: Any) -> None:
    sections: dict[str, list[tuple[str, str]]] = {ARGUMENTS: [], OPTIONS: []}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None:
            names, help_text = map(portuguese, record)
            sections.setdefault(_heading(parameter), []).append((names, help_text))
    last = sections.pop(LAST, [])
    for heading, records in [*sections.items(), (LAST, last)]:
        if records:
            with formatter.section(heading):
                formatter.write_dl(records)


def _write_verbs(commands: Mapping[str, Any], formatter: Any) -> None:
    shown = [(name, verb) for name, verb in commands.items() if not verb.hidden]
    if shown:
        limit = formatter.width - 6 - max(len(name) for name, _ in shown)
        with formatter.section("Comandos"):
            formatter.write_dl([(name, verb.get_short_help_str(limit)) for name, verb in shown])


def _heading(parameter: object) -> str:
    if not isinstance(parameter, TyperOption):
        return ARGUMENTS
    if parameter.name == "help":
        return LAST
    return parameter.rich_help_panel or OPTIONS
