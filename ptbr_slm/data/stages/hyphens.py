"""Words that a line's end parted and that stayed in two: `encomen- das`, `ami¬zade`, `dizia- lhe`.

Scanned books keep the hyphen of the margin inside the line. A hyphen and a space also stand in good text
(`pré- e pós-guerra`, a dash without its first space), so two halves are joined only where the text itself
writes the whole word elsewhere, or where the second is a pronoun that a hyphen ties to its verb.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from ptbr_slm.data.document import Document

_LOWER = "a-zß-öø-ÿ"
_GAP = r"[ \t]*(?:\n[ \t]*)?"
_NOT_SIGN = re.compile(rf"(?<=[{_LOWER}])¬{_GAP}(?=[{_LOWER}]{{2}})")
"""U+00AC, which some recognizers write for the hyphen of the margin."""
_CLITIC = re.compile(rf"(?<=[{_LOWER}]{{2}})- (?=(?:[mts]e|lhes?|[nv]os|l[oa]s?)\b)")
_MESOCLISIS = re.compile(r"(-(?:[mts]e|lhes?|[nv]os|l[oa]s?))- (?=(?:ias?|íamos|iam|ei|ás?|emos|ão)\b)")
"""`retirá-la- ia`."""
_PARTED = re.compile(rf"(?<![\w-])([A-Z{_LOWER}][{_LOWER}]+)-(?: |\n)([{_LOWER}]{{2,}})(?![\w-])")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")


def join_split_words(text: str) -> str:
    """`text` with parted words whole; the same text where none is certain."""
    if "¬" in text:
        text = _NOT_SIGN.sub("", text)
    if "- " not in text and "-\n" not in text:
        return text
    text = _MESOCLISIS.sub(r"\1-", _CLITIC.sub("-", text))
    if _PARTED.search(text) is None:
        return text
    words = Counter(_WORD.findall(text.lower()))

    def whole(match: re.Match[str]) -> str:
        first, second = match.groups()
        joined = max(first + second, f"{first}-{second}", key=lambda word: words[word.lower()])
        if words[joined.lower()] == 0:
            return match.group()
        return joined + ("\n" if "\n" in match.group() else "")

    return _PARTED.sub(whole, text)


@dataclass(frozen=True, slots=True)
class JoinSplitWords:
    """`join_split_words` as a stage."""

    name: str = "join_split_words"

    def __call__(self, document: Document) -> Document:
        """The document with its parted words whole."""
        joined = join_split_words(document.text)
        return document if joined == document.text else document.repaired(joined, "split_words")
