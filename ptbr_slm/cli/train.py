"""`ptbr-slm train`."""

from __future__ import annotations

from typing import Any

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report
from ptbr_slm.cli.train_text import dry_run_report
from ptbr_slm.cli.training_options import settings_of, with_flags


def register(app: typer.Typer) -> None:
    """Add `train` to the application."""
    command(app, "train")(with_flags(train))


def train(out: Output, **given: Any) -> Report:
    """Treina um modelo; interrompido, continua de onde parou quando o comando é repetido."""
    settings = settings_of(given)
    if given["dry_run"]:
        from ptbr_slm.train.planning.plan import dry_run as calculate

        return dry_run_report(calculate(settings))
    from ptbr_slm.cli.train_ranks import run_training

    return run_training(out, settings)
