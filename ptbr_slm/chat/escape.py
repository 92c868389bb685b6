"""Contents in which a template's reader finds no control token, whatever a user typed.

One character of each name is replaced by a code that the template carries along as text. A name may also be
made of a content and what the template writes beside it, so that parts of names at either end count too.
"""

from __future__ import annotations

import re
from collections.abc import Collection


class Escape:
    """Escapes the names of control tokens in a content."""

    def __init__(self, names: Collection[str], nonce: str) -> None:
        """nonce: digits that no content holds; `pattern(nonce)` finds the codes."""
        self._names = names
        self._nonce = nonce
        firsts = "".join(re.escape(name[0]) for name in names)  # hundreds of names are tried there only
        anywhere = "|".join(map(re.escape, names))
        self._found = re.compile(f"(?=[{firsts}])(?={anywhere})" if names else "(?!)")
        self._heads = {name[:size] for name in names for size in range(1, len(name))}
        self._tails = {name[size:] for name in names for size in range(1, len(name))}
        self._longest = max(map(len, names), default=0)

    @staticmethod
    def pattern(nonce: str) -> str:
        """A regular expression for a code; its group `escaped` is the number of the character."""
        return f"\ue000{nonce}:(?P<escaped>[0-9]+)\ue001"

    def __call__(self, content: str) -> str:
        """The content with the first character of each name, or of what may be part of one, replaced.

        White space at the ends is looked through: a template may take it away.
        """
        places = {found.start() for found in self._found.finditer(content)}
        bare = content.rstrip()
        start = len(content) - len(content.lstrip())
        if 0 < len(bare) - start < self._longest and any(bare[start:] in name for name in self._names):
            places.add(start)
        for size in range(1, min(self._longest, len(bare) - start + 1)):
            if bare[-size:] in self._heads:
                places.add(len(bare) - size)
            if content[start : start + size] in self._tails:
                places.add(start)
        written, done = [], 0
        for at in sorted(places):
            written += [content[done:at], f"\ue000{self._nonce}:{ord(content[at])}\ue001"]
            done = at + 1
        return "".join([*written, content[done:]])
