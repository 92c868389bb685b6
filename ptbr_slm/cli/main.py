"""Entry point of `ptbr-slm`: the application with all its verbs.

Verbs import what they need inside their functions: `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, cast

import typer
from typer.core import TyperGroup

from ptbr_slm.cli import app as app_verb
from ptbr_slm.cli import (
    bench,
    chat,
    data,
    doctor,
    export,
    find_lr,
    generate,
    info,
    kaggle,
    quickstart,
    serve,
    tokenizer,
    train,
    tune,
    verify,
)
from ptbr_slm.cli import eval as eval_verb
from ptbr_slm.cli.help import HelpGroup
from ptbr_slm.cli.streams import make_streams_safe, undelivered, write_any_name
from ptbr_slm.cli.usage import USAGE_ERROR, usage_error
from ptbr_slm.errors import Exit, SlmError
from ptbr_slm.version import __version__

app = typer.Typer(
    cls=HelpGroup,
    help="Treina um pequeno modelo de português, exporta para ONNX e gera texto.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ptbr-slm {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Mostra a versão.")
    ] = False,
) -> None:
    """Treina um pequeno modelo de português, exporta para ONNX e gera texto."""


for _verb in (  # in the order in which `ptbr-slm --help` lists them
    quickstart,
    data,
    tokenizer,
    info,
    doctor,
    find_lr,
    train,
    tune,
    eval_verb,
    export,
    verify,
    generate,
    chat,
    bench,
    serve,
    app_verb,
    kaggle,
):
    _verb.register(app)


SPIN_COUNT = "1000"
"""How long PyTorch's OpenMP threads spin before they sleep, unless GOMP_SPINCOUNT says otherwise. With
libgomp's default (300,000) one busy neighbour on two cores cut a small training from 6,900 tokens/s to 191;
with this, to 3,650, at the price of 18 % on an idle machine (docs/decisions/0007-openmp-spin.md)."""


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # read when torch loads libgomp
    make_streams_safe()
    write_any_name()
    raise SystemExit(_with_undelivered(_run()))


def _run() -> int:
    """The exit code of the command line. Usage errors are printed here."""
    root = cast(TyperGroup, typer.main.get_command(app))  # with the options that install completion
    try:
        return int(root.main(prog_name="ptbr-slm", standalone_mode=False) or Exit.OK)
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("Interrompido.\n")
        return Exit.INTERRUPTED
    except USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stderr.write(f"{error}\n")
        else:
            sys.stderr.write(f"{usage_error(error, root, sys.argv[1:])}\n")
        return Exit.USAGE


def _with_undelivered(code: int) -> int:
    """The exit code, once it is known whether standard output arrived; a failure of the verb counts more."""
    lost = undelivered()
    if code != Exit.OK or lost is None:
        return code
    if isinstance(lost, SlmError):
        sys.stderr.write(f"{lost}\n")
        return lost.exit_code
    return lost
