"""Join the lines of prose that was wrapped by hand; keep verse, lists and dialogue as they are.

A line that begins in lower case continues the one before. Where wrapping made it so, nearly every continued
line is full: the next word would hardly have fitted. Those lines give the text a width, and only breaks that
agree with it are joined, so the short last line of a paragraph, a heading or a verse keeps its break. There
is slack, as word processors wrap lines that differ by 10 % in characters.
"""

from __future__ import annotations

import re
from itertools import pairwise

SOFT_HYPHEN = "\xad"
MIN_CONTINUED = 4
"""Lines continued in lower case that it takes to judge a text at all."""
MIN_SHARE = 0.25
"""Share of breaks that are such lines: dialogue has 0.3 or more, old verse and unwrapped text nearly none."""
MIN_FULL = 0.8
"""Share of them that must be full. Verse that begins in lower case varies more."""
SURE_CONTINUED, SURE_SHARE, SURE_FULL = 40, 0.1, 0.95
"""The same three of a play, where speakers' names and short answers take most lines."""
WIDTHS = range(40, 121)
"""Widths, in characters, that people wrap at. Longer lines are whole paragraphs."""
FULL, FULL_SENTENCE, FULL_LOWER = 0.85, 0.93, 0.7
"""Parts of the width that a joined line and the next word exceed: in general, where a sentence ends at the
break (likely a paragraph's end too), and where the next line begins in lower case (surely a continuation)."""
MIN_HYPHENS = 0.04
"""Share of breaks after a hyphen above which the hyphens split syllables."""

MIN_SINGLE_WORDS = 5
"""Lines of one word, one after another, that were one line."""

_KEPT_START = re.compile(
    r"\s"  # indented
    r"|[–—•*·▪►>|+=_#-]"  # dialogue, list, table
    r"|\(?(?:\d{1,3}|[a-zA-Z]|[ivxlIVXL]{1,6})[.)]\s"  # numbered item
)
_SENTENCE_END = re.compile(r"[.!?…:;][\"'”’»)]*$")
_HYPHEN = re.compile(r"[^\W\d_]-$")
_CLITIC = re.compile(r"(?:me|te|se|nos|vos|lhes?|[oa]s?|l[oa]s?|n[oa]s?|ia|ei|á)\b")


def unwrap(text: str) -> str:
    """`text` with hard-wrapped prose joined; the same text where it was not wrapped by hand.

    A soft hyphen at a line's end parts a word, whatever the lines' lengths: the word is made whole.
    """
    lines = text.split("\n")
    width = wrap_width(lines)
    if width is None and SOFT_HYPHEN not in text:
        return text
    if width is not None:
        lines = _join_single_words(lines, width)
    joined = [
        a.endswith(SOFT_HYPHEN) or (width is not None and _continues(a, b, width)) for a, b in pairwise(lines)
    ]
    hyphens = sum(bool(_HYPHEN.search(line[-2:])) for line, join in zip(lines, joined, strict=False) if join)
    syllables = hyphens > MIN_HYPHENS * sum(joined)
    parts = [lines[0]]
    for previous, line, join in zip(lines, lines[1:], joined, strict=False):
        if previous.endswith(SOFT_HYPHEN):
            parts[-1] = previous[:-1]
            parts += ["", line]
            continue
        hyphen = join and _HYPHEN.search(previous[-2:])
        if hyphen and syllables and not _CLITIC.match(line):
            parts[-1] = previous[:-1]
        parts += ["" if hyphen else " " if join else "\n", line]
    return "".join(parts)


def wrap_width(lines: list[str]) -> int | None:
    """The column at which `lines` were wrapped, or None where they were not."""
    breaks = [(a, b) for a, b in pairwise(lines) if a and b]
    continued = [(a, b) for a, b in breaks if b[0].islower()]
    if len(continued) < MIN_CONTINUED:
        return None
    prose = len(continued) >= MIN_SHARE * len(breaks)
    play = len(continued) >= max(SURE_CONTINUED, SURE_SHARE * len(breaks))
    lengths = sorted(len(a) for a, _ in continued if len(a) < WIDTHS.stop)  # a few were joined already
    if len(lengths) < MIN_FULL * len(continued):
        return None
    width = lengths[int(0.98 * (len(lengths) - 1))]
    full = sum(_reach(a, b) > FULL * width for a, b in continued)
    least = MIN_FULL if prose else SURE_FULL if play else 2.0
    return width if width in WIDTHS and full >= least * len(continued) else None


def _join_single_words(lines: list[str], width: int) -> list[str]:
    """A full line that became a word a line, MIN_SINGLE_WORDS or more, is one line again."""
    found: list[str] = []
    run: list[str] = []
    for line in [*lines, ""]:
        if line and " " not in line and not _KEPT_START.match(line):
            run.append(line)
            continue
        joined = " ".join(run)
        is_line = len(run) >= MIN_SINGLE_WORDS and FULL_LOWER * width < len(joined) <= 1.1 * width
        found += [joined] if is_line else run
        run = []
        found.append(line)
    return found[:-1]


def _continues(line: str, following: str, width: int) -> bool:
    if not line or not following or _KEPT_START.match(following) or following.isupper():
        return False
    part = (
        FULL_LOWER if following[0].islower() else FULL_SENTENCE if _SENTENCE_END.search(line[-4:]) else FULL
    )
    return _reach(line, following) > part * width


def _reach(line: str, following: str) -> int:
    """How long `line` would be with the first word of `following`."""
    return len(line) + 1 + len(following.split(maxsplit=1)[0])
