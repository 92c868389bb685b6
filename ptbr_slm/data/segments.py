"""Cut a long text where no token can cross, so that encoding it in pieces changes nothing."""

from __future__ import annotations

import re

SEGMENT_CHARACTERS = 32_768

_BORDER = re.compile(r"(?<=\n)(?=[^\s])|(?<=[^\W\d_])(?= [^\W\d_])")
"""After a newline run that a visible character follows, or before the one space between two letters.

`llama-bpe` (tokenizer.py) never matches across either: newlines end a piece, and a space between letters
begins one. A property test compares the tokens.
"""


def segments(text: str, characters: int = SEGMENT_CHARACTERS) -> list[str]:
    """`text` in pieces of about `characters`, which joined give it back; longer where no border is found."""
    pieces, start = [], 0
    while len(text) - start > characters:
        border = _BORDER.search(text, start + characters)
        if border is None:
            break
        pieces.append(text[start : border.start()])
        start = border.start()
    pieces.append(text[start:])
    return pieces
