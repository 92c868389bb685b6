"""The terminal: how wide it is, whether it shows colours, and text that suits both."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import textwrap
from collections.abc import Mapping
from enum import StrEnum
from typing import TextIO

DEFAULT_WIDTH, LEAST_WIDTH, MOST_WIDTH = 80, 30, 100
"""Columns: where there is no terminal, and the ends of what is used. Longer lines are hard to read."""


class Style(StrEnum):
    """Codes of ANSI terminals."""

    BOLD = "1"
    RED = "1;31"
    GREEN = "32"
    YELLOW = "33"
    CYAN = "36"
    GREY = "90"


def columns() -> int:
    """The width to write for: COLUMNS, or the terminal of stdout or else of stderr, within the limits."""
    given = os.environ.get("COLUMNS", "")
    width = int(given) if given.isdecimal() else 0
    for stream in (sys.stdout, sys.stderr):
        if width <= 0:
            with contextlib.suppress(OSError, ValueError, AttributeError):  # no terminal, or no descriptor
                width = os.get_terminal_size(stream.fileno()).columns
    return min(max(width or DEFAULT_WIDTH, LEAST_WIDTH), MOST_WIDTH)


def wants_colour(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether text for `stream` is coloured: on a terminal, unless its user says otherwise.

    NO_COLOR (no-color.org) wins over FORCE_COLOR and CLICOLOR_FORCE, and these over TERM=dumb and CLICOLOR=0.
    """
    if environment.get("NO_COLOR"):
        return False
    if force := environment.get("FORCE_COLOR") or environment.get("CLICOLOR_FORCE"):
        return force not in ("0", "false")
    if not stream.isatty() or environment.get("TERM") == "dumb" or environment.get("CLICOLOR") == "0":
        return False
    modern = ("WT_SESSION", "ANSICON", "TERM", "TERM_PROGRAM")  # the old console of Windows shows the codes
    return os.name != "nt" or any(name in environment for name in modern)


def styled(text: str, style: Style, on: bool = True) -> str:
    """`text` in this style; as it is where `on` is false, or where there is none."""
    return f"\x1b[{style.value}m{text}\x1b[0m" if on and text.strip() else text


_SIGNS = {"Erro": Style.RED, "Atenção": Style.YELLOW}
_SIGN = re.compile(r"^(Erro|Atenção)( \[\w+\])?:")


def highlighted(text: str, stream: TextIO) -> str:
    """A message with the word that says what it is in colour, where the stream shows colours."""
    if not wants_colour(stream):
        return text
    return _SIGN.sub(lambda found: styled(found[0], _SIGNS[found[1]]), text)


_KEPT = re.compile(r"\S  +\S|\x1b|(^|\s)(ptbr-slm|pip|python|kaggle|export) ")
"""In a line that stays as it is: columns of a table, or a command, which is copied whole."""


def fitted(text: str, stream: TextIO) -> str:
    """`text` with its sentences broken between words, where `stream` is a terminal that is narrower."""
    if not stream.isatty():
        return text
    width = columns()
    return "\n".join(_broken(line, width) for line in text.split("\n"))


def _broken(line: str, width: int) -> str:
    if len(line) <= width or _KEPT.search(line):
        return line
    indent = line[: len(line) - len(line.lstrip())]
    rest = f"{indent}  " if _SIGN.match(line) else indent
    return textwrap.fill(line, width, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False)


def paragraph(text: str) -> str:
    """A text of a report in lines of the terminal's width."""
    return textwrap.fill(text, columns(), break_long_words=False, break_on_hyphens=False)
