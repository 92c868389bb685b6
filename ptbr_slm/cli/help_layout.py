"""How a help text is laid out: sections of two columns, one below the other where the terminal is narrow."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from ptbr_slm.cli.terminal import Style, styled

NARROW = 60
"""Below this width what an option does stands under its name."""
_INDENT, _GAP = "  ", "  "
_LEAST_NAME, _MOST_NAME = 20, 28
"""Columns for names where one of them is longer than the second, and has a line of its own."""

Rows = Sequence[tuple[str, str]]
"""(names, what they do)."""


class Layout:
    """Lays out the pieces of a help for a terminal.

    width: columns. colour: whether headings and names are coloured.
    """

    def __init__(self, width: int, colour: bool) -> None:
        self.width, self.colour = width, colour

    def usage(self, lines: Sequence[str]) -> str:
        """`Uso: ...`, with the lines behind it below each other."""
        heading = "Uso: "
        shown = [
            self._filled(line, heading if index == 0 else " " * len(heading), " " * (len(heading) + 4))
            for index, line in enumerate(lines)
        ]
        return "\n".join(shown).replace(heading, self._heading("Uso:") + " ", 1)

    def paragraphs(self, text: str) -> str:
        """Indented paragraphs."""
        found = re.split(r"\n\s*\n", text.strip())
        return "\n\n".join(self._filled(" ".join(part.split()), _INDENT, _INDENT) for part in found)

    def section(self, heading: str, rows: Rows, room: int = 0) -> str:
        """A heading and its rows. room: columns for the names, at least."""
        return "\n".join([self._heading(f"{heading}:"), *self._rows(rows, room)])

    def examples(self, examples: Mapping[str, str]) -> str:
        """Commands, each under what it is for."""
        lines = [self._heading("Exemplos:")]
        for command, purpose in examples.items():
            lines.append(self._filled(f"{purpose}:", _INDENT, _INDENT))
            lines += [self._name(line) for line in wrapped_command(command, self.width, _INDENT * 2)]
        return "\n".join(lines)

    def _rows(self, rows: Rows, room: int) -> Iterator[str]:
        if self.width < NARROW:
            for names, told in rows:
                yield self._name(self._filled(names, _INDENT, _INDENT * 2))
                yield from [self._filled(told, _INDENT * 3, _INDENT * 3)] if told.strip() else []
            return
        lengths = [len(names) for names, _ in rows]
        least = _LEAST_NAME if max(lengths) > _MOST_NAME else 0
        room = max([room, least, *(length for length in lengths if length <= _MOST_NAME)])
        margin = " " * (len(_INDENT) + room + len(_GAP))
        for names, told in rows:
            text = self._filled(told, margin, margin)
            name = self._name(names)
            if len(names) > room:
                yield f"{_INDENT}{name}"
                yield text
            else:
                yield f"{_INDENT}{name}{text[len(_INDENT) + len(names) :]}".rstrip()

    def _filled(self, text: str, first: str, rest: str) -> str:
        """Lines of at most the width; `\\xa0` is a space at which no line ends."""
        lines = textwrap.wrap(
            text,
            self.width,
            initial_indent=first,
            subsequent_indent=rest,
            break_on_hyphens=False,
            break_long_words=False,
        )
        return "\n".join(lines or [first]).replace("\xa0", " ")

    def _heading(self, text: str) -> str:
        return styled(text, Style.BOLD, self.colour)

    def _name(self, text: str) -> str:
        return styled(text, Style.CYAN, self.colour)


def wrapped_command(command: str, width: int, indent: str) -> list[str]:
    """The command in lines that a shell reads as one: broken before an option, with a backslash."""
    room = width - len(indent) - len(_INDENT) - 2
    pieces: list[str] = []
    for piece in re.split(r" (?=-{1,2}[a-z]|\| )", command):
        pieces += [piece] if len(piece) <= room else re.findall(r'(?:"[^"]*"|\S)+', piece)
    lines, line = [], indent + pieces[0]
    for piece in pieces[1:]:
        if len(line) + 1 + len(piece) > width - 2:
            lines.append(f"{line} \\")
            line = f"{indent}{_INDENT}{piece}"
        else:
            line += f" {piece}"
    return [*lines, line]
