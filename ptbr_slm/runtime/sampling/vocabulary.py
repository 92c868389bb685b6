"""A tokenizer as llguidance sees it: the bytes of every token, as `TextStream` puts them together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary, ref

from ptbr_slm.tokenizer import Tokenizer

_views: WeakKeyDictionary[Tokenizer, dict[tuple[int, ...], Any]] = WeakKeyDictionary()
"""0.1 s to build for 32,000 tokens."""

_lock = Lock()


def view_of(tokenizer: Tokenizer, end_ids: tuple[int, ...]) -> Any:
    """llguidance's LLTokenizer of a tokenizer and its end tokens (at least one), built once.

    None where the tokens' bytes are not known: neither byte-level nor SentencePiece-style.
    """
    from llguidance import LLTokenizer, TokenizerWrapper

    if not (tokenizer.is_byte_level or tokenizer.is_metaspace):
        return None
    with _lock:
        known = _views.setdefault(tokenizer, {})
        if end_ids not in known:
            spelling = TokenizerWrapper(_Spelling(tokenizer, end_ids))
            known[end_ids] = LLTokenizer(spelling, eos_token=list(end_ids))
        return known[end_ids]


class _Spelling:
    """What llguidance asks of a tokenizer, under its names."""

    def __init__(self, tokenizer: Tokenizer, end_ids: Sequence[int]) -> None:
        special = tokenizer.special_ids | set(end_ids)
        self.eos_token_id = end_ids[0]
        self.bos_token_id = tokenizer.bos_id
        self.special_token_ids = sorted(special)
        self.tokens = [
            (tokenizer.token_name(i) or "").encode("utf-8") if i in special else tokenizer.token_bytes(i)
            for i in range(tokenizer.vocab_size)
        ]
        self._tokenizer = ref(tokenizer)  # it is the key of `_views`, which must not keep it alive

    def __call__(self, text: str | bytes) -> list[int]:
        """Ids whose bytes are those of `text`, for what a form forces: the tokenizer's own where they fit."""
        raw = text.encode("utf-8") if isinstance(text, str) else text
        tokenizer = self._tokenizer()
        if tokenizer is None:
            return self._longest_first(raw)
        mark = "\n" if tokenizer.marks_start else ""  # takes the space that would come before a text
        ids = tokenizer.encode(mark + raw.decode("utf-8", errors="replace"), special=False)
        for skipped in range(3 if mark else 1):
            if b"".join(self.tokens[i] for i in ids[skipped:]) == raw:
                return ids[skipped:]
        return self._longest_first(raw)

    def _longest_first(self, raw: bytes) -> list[int]:
        """Not as the tokenizer would: it changes the text (NFC), or joins it with what comes before."""
        ids = []
        longest = max(map(len, self._by_bytes))
        while raw:
            ends = (end for end in range(min(len(raw), longest), 0, -1) if raw[:end] in self._by_bytes)
            end = next(ends, 0)
            if not end:  # no token begins so: llguidance will say that the text cannot go on
                break
            ids.append(self._by_bytes[raw[:end]])
            raw = raw[end:]
        return ids

    @cached_property
    def _by_bytes(self) -> dict[bytes, int]:
        special = set(self.special_token_ids)
        return {spelled: i for i, spelled in enumerate(self.tokens) if i not in special}
