"""Entry point of `ptbr-slm`: the application with all its verbs.

Verbs import what they need inside their functions: `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, ClassVar, cast

import typer
from typer.core import TyperGroup

from ptbr_slm.cli import app as app_verb
from ptbr_slm.cli import (
    bench,
    chat,
    completion,
    data,
    doctor,
    draft,
    export,
    find_lr,
    generate,
    info,
    kaggle,
    plan,
    quickstart,
    serve,
    tokenizer,
    train,
    tune,
    verify,
)
from ptbr_slm.cli import eval as eval_verb
from ptbr_slm.cli.help import HelpGroup, help_text
from ptbr_slm.cli.streams import make_streams_safe, undelivered, write_anything
from ptbr_slm.cli.terminal import fitted, highlighted
from ptbr_slm.cli.usage import USAGE_ERROR, usage_error
from ptbr_slm.errors import Exit, SlmError
from ptbr_slm.version import __version__

ABOUT = "Treina um pequeno modelo de português, exporta para ONNX e gera texto."


class Root(HelpGroup):
    """The whole application: its help names the verbs in the order in which one meets them."""

    headings: ClassVar = {
        "Comece por aqui": ("quickstart",),
        "Usar um modelo": ("generate", "chat", "app", "serve"),
        "Preparar textos": ("data", "tokenizer"),
        "Treinar": ("plan", "info", "find-lr", "train", "tune", "draft"),
        "Medir e exportar": ("eval", "export", "verify"),
        "A máquina": ("doctor", "bench", "kaggle"),
    }
    examples: ClassVar = {
        'ptbr-slm generate -m machado "O rio corre"': "O modelo de demonstração continua uma frase",
        "ptbr-slm quickstart": "Um primeiro modelo seu, em poucos minutos",
        "ptbr-slm train --help": "As opções e os exemplos de um comando",
    }


app = typer.Typer(
    cls=Root,
    help=ABOUT,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ptbr-slm {__version__}")
        raise typer.Exit


@app.callback(help=ABOUT)
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Mostra a versão.", rich_help_panel="Geral"
        ),
    ] = False,
    install_completion: completion.Install = False,
    show_completion: completion.Show = False,
) -> None:
    """Take the options that stand before a verb."""


for _verb in (
    app_verb,
    bench,
    chat,
    data,
    doctor,
    draft,
    eval_verb,
    export,
    find_lr,
    generate,
    info,
    kaggle,
    plan,
    quickstart,
    serve,
    tokenizer,
    train,
    tune,
    verify,
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
    write_anything()
    completion.prepare()
    raise SystemExit(_with_undelivered(_run()))


def _run() -> int:
    """The exit code of the command line. Usage errors are printed here."""
    root = cast(TyperGroup, typer.main.get_command(app))
    try:
        return int(root.main(prog_name="ptbr-slm", standalone_mode=False) or Exit.OK)
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("Interrompido.\n")
        return Exit.INTERRUPTED
    except USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            ctx = cast(Any, error).ctx
            sys.stderr.write(f"{help_text(ctx.command, ctx, sys.stderr)}\n")
        else:
            _say(usage_error(error, root, sys.argv[1:]))
        return Exit.USAGE
    except SlmError as error:  # of an option that stands before a verb
        _say(error)
        return error.exit_code


def _with_undelivered(code: int) -> int:
    """The exit code, once it is known whether standard output arrived; a failure of the verb counts more."""
    lost = undelivered()
    if code != Exit.OK or lost is None:
        return code
    if isinstance(lost, SlmError):
        _say(lost)
        return lost.exit_code
    return lost


def _say(error: SlmError) -> None:
    """Print an error that is no verb's own."""
    sys.stderr.write(f"{highlighted(fitted(str(error), sys.stderr), sys.stderr)}\n")
