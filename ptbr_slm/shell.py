"""Paths and words in the commands that we print: whatever is copied into a shell means the same there."""

from __future__ import annotations

import os
import shlex
from pathlib import PurePath


def quoted(word: str | os.PathLike[str]) -> str:
    """`word` as one word of a shell: `out` stays as it is, `a b/$(z)` becomes `'a b/$(z)'`.

    A path that begins with a dash gets `./` before it, so that no program takes it for an option.
    """
    text = os.fspath(word)
    return shlex.quote("./" + text if isinstance(word, PurePath) and text.startswith("-") else text)
