"""An example as a person reads it: what is learnt, what is only read, and the control tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import StringIO
from itertools import groupby

from ptbr_slm.text import number
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.tune.examples import Example

_WIDTH = 80
_MOST_TOKENS = 400
"""Of a longer example the beginning and the end are shown."""
_LEARNT, _READ, _CONTROL, _LEARNT_CONTROL = "bold green", "", "dim cyan", "bold magenta"
_OPEN, _CLOSE = "«", "»"
"""Around what is learnt, where there are no colours; in Latin 1 too, so that every terminal has them."""

_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def show_example(example: Example, tokenizer: Tokenizer, *, colour: bool, width: int = _WIDTH) -> str:
    """The example's text in lines of at most `width` columns, with a legend; ends without a line break.

    colour: with ANSI colours; otherwise what is learnt is between « and ». Control tokens are shown by their
    names. A character is never cut, even where a token is half of one.
    """
    from rich.console import Console
    from rich.text import Text

    shown = Text()
    for learnt, pieces in _runs(example, tokenizer):
        marked = learnt and not colour
        shown.append(_OPEN if marked else "")
        for text, style in pieces:
            shown.append(_visible(text), style)
        shown.append(_CLOSE if marked else "")
    console = Console(
        file=StringIO(),
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
        highlight=False,
        _environ={},
    )
    console.print(Text.assemble(*_legend(example, colour)), shown, sep="\n", soft_wrap=False)
    assert isinstance(console.file, StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().rstrip("\n").split("\n"))


def _legend(example: Example, colour: bool) -> list[tuple[str, str]]:
    where = f" ({example.where})" if example.where else ""
    counts = f"{number(len(example.ids))} tokens, {number(example.targets)} treinados"
    first = f"Exemplo{where}: {counts}.\n"
    if not colour:
        return [
            (first, ""),
            (f"Entre {_OPEN} e {_CLOSE}: treinado; <|...|>: token especial; o resto só é lido.\n", ""),
        ]
    return [
        (first, ""),
        ("treinado", _LEARNT),
        (" · ", ""),
        ("especial treinado", _LEARNT_CONTROL),
        (" · ", ""),
        ("especial", _CONTROL),
        (" · o resto só é lido\n", ""),
    ]


_Pieces = list[tuple[str, str]]
"""(text, style)"""


def _runs(example: Example, tokenizer: Tokenizer) -> Iterator[tuple[bool, _Pieces]]:
    """(whether it is learnt, its pieces) of tokens that are or are not learnt, run by run."""
    ids, target = example.ids.tolist(), example.target.tolist()
    hidden = len(ids) - _MOST_TOKENS
    if hidden <= 0:
        parts = [range(len(ids))]
    else:
        parts = [range(_MOST_TOKENS // 2), range(len(ids) - _MOST_TOKENS // 2, len(ids))]
    for part in parts:
        if part.start:
            yield False, [(f"\n[... {number(hidden)} tokens ...]\n", "italic")]
        for learnt, run in groupby(part, lambda at: target[at]):
            yield learnt, list(_pieces([ids[at] for at in run], learnt, tokenizer))


def _pieces(ids: list[int], learnt: bool, tokenizer: Tokenizer) -> Iterator[tuple[str, str]]:
    special = tokenizer.special_ids
    for control, tokens in groupby(ids, special.__contains__):
        if control:
            names = "".join(str(tokenizer.token_name(token)) for token in tokens)
            yield names, _LEARNT_CONTROL if learnt else _CONTROL
        else:
            decoder = tokenizer.stream_decoder(continuation=True)
            text = "".join(map(decoder.push, tokens)) + decoder.finish()
            yield text.strip("\ufffd"), _LEARNT if learnt else _READ  # half characters at a cut


def _visible(text: str) -> str:
    """`text` without the control characters that would command the terminal."""
    return _COMMANDS.sub("\ufffd", text)
