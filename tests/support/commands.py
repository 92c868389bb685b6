"""Every command of the application, and whether a command line is one of them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import typer

from ptbr_slm.cli.main import app
from ptbr_slm.cli.usage import USAGE_ERROR, usage_error


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """(its words, the command) of every command, groups before their members."""

    def walk(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
        yield words, command
        for name, member in getattr(command, "commands", {}).items():
            yield from walk((*words, name), member)

    yield from walk((), typer.main.get_command(app))


def words_of(line: str) -> list[str]:
    """The words behind `ptbr-slm` in a shell's line, without what stands before a pipe."""
    part = next(piece for piece in line.split("|") if "ptbr-slm " in piece or piece.strip() == "ptbr-slm")
    return shlex.split(part)[1:]


def refusal(line: str) -> str | None:
    """Why the real options do not take this command line; None where they do. Nothing is run."""
    words = words_of(line)
    root = typer.main.get_command(app)
    path, command = max(
        ((path, command) for path, command in commands() if tuple(words[: len(path)]) == path),
        key=lambda found: len(found[0]),
    )
    try:
        command.make_context(" ".join(["ptbr-slm", *path]), words[len(path) :])
    except USAGE_ERROR as error:
        return str(usage_error(error, root, words))
    except typer.Exit:  # --help and --version
        pass
    return None
