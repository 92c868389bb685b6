"""`@command`: the flags that every verb has, and the one place where an exception becomes an exit code."""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from ptbr_slm.cli.help import HelpGroup, verb_class
from ptbr_slm.cli.output import Mode, Output, Report
from ptbr_slm.cli.streams import OutputLost
from ptbr_slm.errors import EXTRA_OF, Exit, SlmError, from_os_error, missing_extra, says_out_of_memory

_JSON = Annotated[
    bool, typer.Option("--json", help="Resultado em JSON na saída padrão.", rich_help_panel="Geral")
]
_QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="Só o essencial.", rich_help_panel="Geral")]
_DEBUG = Annotated[
    bool,
    typer.Option("--debug", help="Mostra o erro completo.", envvar="PTBR_SLM_DEBUG", rich_help_panel="Geral"),
]


def verb_group(told: str) -> typer.Typer:
    """A word that has verbs below it, such as `data`. told: its help, in Portuguese."""
    return typer.Typer(help=told, no_args_is_help=True, rich_markup_mode=None, cls=HelpGroup)


def command(
    app: typer.Typer,
    name: str,
    *,
    examples: Mapping[str, str] | None = None,
    members: typer.Typer | None = None,
) -> Callable[[Callable[..., Report]], Callable[..., Report]]:
    """Register `function(out, ...) -> Report` as the verb `name`, with --json, --quiet and --debug added.

    examples: command line -> what it is for (Portuguese), shown by --help.
    members: verbs that are reached by a first word after this one's name, before its own arguments.

    The function's docstring is its help (Portuguese). It raises SlmError for what a user can cause; whatever
    else escapes becomes E_INTERNAL, and a traceback is shown with --debug only.
    """

    def register(function: Callable[..., Report]) -> Callable[..., Report]:
        signature = inspect.signature(function, eval_str=True)
        own = [parameter for key, parameter in signature.parameters.items() if key != "out"]

        @functools.wraps(function)
        def run(*, as_json: bool, quiet: bool, debug: bool, **arguments: Any) -> None:
            mode = Mode.JSON if as_json else Mode.QUIET if quiet else Mode.HUMAN
            code = execute(functools.partial(function, **arguments), Output(mode, debug=debug))
            raise typer.Exit(code)

        keyword = inspect.Parameter.KEYWORD_ONLY
        common = [
            inspect.Parameter("as_json", keyword, default=False, annotation=_JSON),
            inspect.Parameter("quiet", keyword, default=False, annotation=_QUIET),
            inspect.Parameter("debug", keyword, default=False, annotation=_DEBUG),
        ]
        parameters = [parameter.replace(kind=keyword) for parameter in own] + common
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name, cls=verb_class(examples or {}, members))(run)
        return function

    return register


def execute(function: Callable[[Output], Report], out: Output) -> int:
    """Run a verb, print its report or its error, return the exit code."""
    try:
        report = function(out)
        out.report(report)
        return int(report.exit_code)
    except KeyboardInterrupt:
        out.error("Interrompido.")
        return Exit.INTERRUPTED
    except OutputLost:  # `ptbr-slm generate ... | head`: `main` says what that means
        return Exit.OK
    except Exception as error:
        known = as_slm_error(error)
        if out.debug:
            traceback.print_exception(error)
        out.error(str(known))
        return int(known.exit_code)


def as_slm_error(error: Exception) -> SlmError:
    """The answer to give for any exception."""
    if isinstance(error, SlmError):
        return error
    if isinstance(error, OSError):
        return from_os_error(error, error.filename or "")
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRA_OF:
        return missing_extra(error.name)
    text = str(error)
    if says_out_of_memory(error):
        return SlmError(
            "E_MEMORY",
            "a memória não foi suficiente.",
            where=text.splitlines()[0][:160] if text else "",
            hint="Use --batch-size menor e --grad-accum maior, ou um --model-size menor (ptbr-slm info).",
        )
    return SlmError(
        "E_INTERNAL",
        f"{type(error).__name__}: {text.splitlines()[0][:200] if text else 'sem detalhes'}",
        hint="É um defeito nosso: repita com --debug e abra uma issue com o que aparecer.",
    )
