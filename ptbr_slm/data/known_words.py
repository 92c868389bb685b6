"""Token ids of words met before: a tokenizer's answers, remembered for the pieces that it splits text into.

A byte-level BPE encodes each piece of its split alone, so a piece has the same ids wherever it stands, and a
text is mostly pieces met before. Splitting with `re` and looking the ids up is 3 to 5 times as fast as the
tokenizers library on one core: its own cache keeps 10,000 pieces, and most of its time goes into the split.

Only texts of `COVERED` characters go this way. Their classes are the same in every version of Unicode, and
NFC changes none of them, so `re` splits them as the library does; a property test compares the tokens.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from itertools import chain
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ptbr_slm.tokenizer import LLAMA_BPE_SPLIT, Tokenizer

_LONG_S = 0x17F
"""The library takes it for an s where it ignores case."""
COVERED = (
    "\t\n\x0b\x0c\r"
    + "".join(map(chr, range(0x20, 0x7F)))
    + "".join(chr(code) for code in range(0xA0, 0x250) if code != _LONG_S)
    + "–—‘’“”„•…‹›€™"
)
"""Characters of the texts that are looked up: Latin letters, punctuation, white space."""
MAX_PIECES, MAX_CHARACTERS = 1 << 16, 1 << 20
"""Pieces of a generation, and their characters. When it is full a new one begins, which takes from the last
what it meets again; what is older is forgotten."""
_MAX_ADDED = 64
"""A tokenizer with more added tokens, each of which is looked for in every text, is left to the library."""


def _class(characters: Iterable[str]) -> str:
    """The characters as the inside of a class of `re`."""
    ranges: list[list[int]] = []
    for code in sorted(map(ord, characters)):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"{re.escape(chr(first))}-{re.escape(chr(last))}" for first, last in ranges)


def _expressions() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """(`LLAMA_BPE_SPLIT` for covered characters, a character that is not covered).

    Letters with what stands before them come first, as they are most of a text. An apostrophe before letters
    keeps its place after the endings (`'s`, `'ll`) that would be found first.
    """
    white = set("\t\n\x0b\x0c\r \xa0")
    letters = {char for char in COVERED if unicodedata.category(char).startswith("L")}
    digits = {char for char in COVERED if unicodedata.category(char).startswith("N")}
    marks = set(COVERED) - white - letters - digits
    s, l, n, o = map(_class, (white, letters, digits, marks))  # noqa: E741
    before = _class((white | marks) - set("\r\n'"))
    split = (
        rf"[{before}]?[{l}]+|'(?:[sStTmMdD]|[rRvV][eE]|[lL]{{2}})|'[{l}]+|[{n}]{{1,3}}"
        rf"| ?[{o}]+[\r\n]*|[{s}]*[\r\n]+|[{s}]+(?![^{s}])|[{s}]+"
    )
    return re.compile(split), re.compile(f"[^{_class(COVERED)}]")


_SPLIT, _NOT_COVERED = _expressions()


class KnownWords:
    """The memory of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer, added: tuple[str, ...]) -> None:
        self._tokenizer = tokenizer
        self._added = added
        self._ids: dict[str, list[int]] = {}
        self._earlier: dict[str, list[int]] = {}
        self._characters = 0

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self | None:
        """For a tokenizer that encodes as ours do; None for others."""
        body = json.loads(tokenizer.to_json())
        added = tuple(token["content"] for token in body["added_tokens"])
        return cls(tokenizer, added) if _is_ours(body) and len(added) <= _MAX_ADDED else None

    def covers(self, text: str) -> bool:
        """Whether `encode` may be asked: only covered characters, and no added token in the text."""
        return _NOT_COVERED.search(text) is None and not any(token in text for token in self._added)

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """The ids of a text that is covered."""
        if len(self._ids) > MAX_PIECES or self._characters > MAX_CHARACTERS:
            self._earlier, self._ids, self._characters = self._ids, {}, 0
        pieces = _SPLIT.findall(text)
        missing = set(pieces).difference(self._ids)
        if missing:
            self._learn(missing)
        return np.fromiter(chain.from_iterable(map(self._ids.__getitem__, pieces)), np.uint32)

    def _learn(self, pieces: set[str]) -> None:
        self._characters += sum(map(len, pieces))
        for piece in pieces & self._earlier.keys():
            self._ids[piece] = self._earlier[piece]
        new = [*pieces.difference(self._ids)]
        self._ids.update(zip(new, self._tokenizer.encode_batch(new), strict=True))


def _is_ours(body: dict[str, Any]) -> bool:
    """Whether a tokenizer.json is a byte-level BPE with our split, and nothing that looks past a piece."""
    before = (body.get("pre_tokenizer") or {}).get("pretokenizers") or []
    if len(before) != 2 or (body.get("normalizer") or {"type": "NFC"}) != {"type": "NFC"}:
        return False
    split, level = before
    model = body.get("model") or {}
    return (
        (split.get("type"), split.get("pattern")) == ("Split", {"Regex": LLAMA_BPE_SPLIT})
        and (split.get("behavior"), split.get("invert")) == ("Isolated", False)
        and (level.get("type"), level.get("add_prefix_space"), level.get("use_regex"))
        == ("ByteLevel", False, False)
        and model.get("type") == "BPE"
        and not model.get("dropout")
        and not body.get("truncation")
        and not body.get("padding")
    )
