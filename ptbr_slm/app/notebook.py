"""In a notebook: writing with a model inside a cell, where no browser reaches the page. Needs no widgets."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.model import Model

INVITATION = "Escreva aqui mesmo um começo, e o modelo o continua. Uma linha vazia termina.\n"
ASK = "Começo: "
END = "Até logo. Para escrever mais, rode a célula de novo.\n"


def in_notebook() -> bool:
    """Whether a person can still type after a call returns: a notebook or an interactive shell."""
    return hasattr(sys, "ps1")


def code_for_a_cell(path: Path, beginning: str) -> str:
    """What to paste into a cell to see the model write, with no page and nobody who types."""
    return (
        "Use o modelo direto numa célula:\n\n"
        "  import ptbr_slm\n"
        f'  for trecho in ptbr_slm.stream("{beginning}", model={str(path)!r}):\n'
        '      print(trecho.text, end="", flush=True)'
    )


def write_in_cell(model: Model, *, seed: int | None = None) -> bool:
    """Ask for a beginning, show its continuation as it grows, and so on until an empty line.

    Interrupting the cell ends the text that is being written or, while it asks, everything. False where
    nobody can answer (a notebook that runs by itself): then nothing was said. seed: of every text; drawn each
    time where None.
    """
    ask = INVITATION + ASK
    while True:
        try:
            beginning = input(ask)
        except KeyboardInterrupt:
            beginning = ""
        except (EOFError, NotImplementedError):  # IPython's StdinNotImplementedError is a NotImplementedError
            return False
        if not beginning.strip():
            _say(END)
            return True
        _continue(model, beginning, seed)
        ask = ASK


def _continue(model: Model, beginning: str, seed: int | None) -> None:
    """One text. What is wrong with the beginning is said, and the next one may be better."""
    _say(beginning)
    try:
        with closing(model.stream(beginning, seed=seed)) as chunks:
            for chunk in chunks:
                _say(chunk.text)
    except KeyboardInterrupt:
        _say(" [parado]")
    except SlmError as error:
        _say(f"\n{error}")
    _say("\n\n")


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
