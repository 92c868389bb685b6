"""`--help` of a verb: its options under the headings that they name (`rich_help_panel`), without rich.

rich would draw the same as boxes, for 0.1 s more; `--help` has 0.4 s.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

ARGUMENTS, OPTIONS, LAST = "Argumentos", "Opções", "Geral"


class PanelCommand(TyperCommand):
    """A verb whose help is laid out by heading: arguments, plain options, panels as they come, `Geral`."""

    def get_help_option(self, ctx: Any) -> Any:
        """`--help` in Portuguese, among the options that every verb has."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.help = "Mostra esta ajuda."
        return option

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections to `formatter`."""
        sections: dict[str, list[tuple[str, str]]] = {ARGUMENTS: [], OPTIONS: []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections.setdefault(_heading(parameter), []).append(record)
        last = sections.pop(LAST, [])
        for heading, records in [*sections.items(), (LAST, last)]:
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def _heading(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return ARGUMENTS
    if parameter.name == "help":
        return LAST
    return getattr(parameter, "rich_help_panel", None) or OPTIONS
