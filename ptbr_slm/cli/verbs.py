"""The verbs, in the order in which `ptbr-slm --help` lists them."""

from __future__ import annotations

import typer

from ptbr_slm.cli import app as app_verb
from ptbr_slm.cli import (
    bench,
    data,
    doctor,
    export,
    find_lr,
    generate,
    info,
    kaggle,
    quickstart,
    tokenizer,
    train,
    verify,
)


def register(app: typer.Typer) -> None:
    """Add every verb to the application."""
    for module in (
        quickstart,
        data,
        tokenizer,
        info,
        doctor,
        find_lr,
        train,
        export,
        verify,
        generate,
        bench,
        app_verb,
        kaggle,
    ):
        module.register(app)
