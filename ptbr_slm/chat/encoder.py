"""Texts and control tokens to ids, in one call of the tokenizers library.

One call, since what a text becomes depends on what stands before it: SentencePiece's rules put a `▁` before
the first text alone, or before every text that follows a control token. In a copy of the tokenizer each
control token has a random name, so that no text can spell one, and the names that texts do spell are letters.
"""

from __future__ import annotations

import json
import secrets
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as _Library

from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.tokenizer.tokenizer import library_errors

_CACHED_PROMPTS = 256


@dataclass(frozen=True, slots=True, eq=False)
class EncodedChat:
    """A conversation as ids."""

    ids: npt.NDArray[np.int64]
    """(T,)"""
    answer: npt.NDArray[np.bool_]
    """(T,) True for the tokens that the assistant writes, the token that ends its turn included."""


class ControlEncoder:
    """Encodes pieces: a `str` is text whatever it says, an `int` the id of a control token."""

    def __init__(self, tokenizer: Tokenizer, controls: Collection[int]) -> None:
        """controls: ids of the control tokens."""
        self._tokenizer = tokenizer
        self._opening = f"<|{secrets.token_hex(8)}:"
        self._names = {token: f"{self._opening}{token}|>" for token in controls}
        self._cut = f"{self._opening}cut|>"
        self._ids_of = lru_cache(_CACHED_PROMPTS)(lambda text: self._run(text)[0])

    def encode(self, pieces: Sequence[str | int], answers: Sequence[tuple[int, int]] = ()) -> EncodedChat:
        """Ids of all pieces together, and which of them belong to an answer.

        answers: (first, last + 1) piece of each. What stands before an answer has the ids that it has without
        the answer: where the tokenizer would make one token of both sides of that boundary, it is cut there.
        """
        written = [piece if isinstance(piece, str) else self._names[piece] for piece in pieces]
        begins = [0, *accumulate(map(len, written))]
        spans = [(begins[first], begins[last]) for first, last in answers]
        text = "".join(written)
        ids, first = self._run(text)
        while (at := self._first_merged(text, ids, first, spans)) is not None:
            text = text[:at] + self._cut + text[at:]
            spans = [(x + len(self._cut) * (x >= at), y + len(self._cut) * (y > at)) for x, y in spans]
            ids, first = self._run(text)
        answer = np.zeros(len(ids), dtype=np.bool_)
        for start, end in spans:
            answer[bisect_left(first, start) : bisect_left(first, end)] = True
        whole = np.array(ids, dtype=np.int64)
        kept = whole != self._cut_id
        return EncodedChat(whole[kept], answer[kept])

    def _first_merged(
        self, text: str, ids: Sequence[int], first: Sequence[int], spans: Sequence[tuple[int, int]]
    ) -> int | None:
        """Where the first answer begins whose prompt has other ids alone; None where none does.

        The text from the last control token on decides: it keeps what stands before it apart.
        """
        for at, _ in spans:
            begin = max(text.rfind(self._opening, 0, at), 0)
            alone = self._ids_of(text[begin:at])
            token = bisect_left(first, begin)
            after = token + len(alone)
            if ids[token:after] != alone or (after < len(first) and first[after] < at):
                return at
        return None

    def _run(self, text: str) -> tuple[list[int], list[int]]:
        """Ids, and the character at which each begins, which never falls."""
        with library_errors():
            encoding = self._library.encode(text, add_special_tokens=False)
        return list(encoding.ids), list(accumulate((start for start, _ in encoding.offsets), max))

    @cached_property
    def _cut_id(self) -> int | None:
        return self._library.token_to_id(self._cut)

    @cached_property
    def _library(self) -> _Library:
        """The copy. Merges that would spell a control token's name are left out of it."""
        body: dict[str, Any] = json.loads(self._tokenizer.to_json())
        renamed = {str(self._tokenizer.token_name(token)): name for token, name in self._names.items()}
        model = body["model"]
        vocabulary = model["vocab"]
        if isinstance(vocabulary, dict):
            model["vocab"] = {renamed.get(token, token): i for token, i in vocabulary.items()}
        else:  # Unigram: [[token, score], ...]
            model["vocab"] = [[renamed.get(token, token), score] for token, score in vocabulary]
        if "merges" in model:
            pairs = [m.split(" ", 1) if isinstance(m, str) else m for m in model["merges"]]
            model["merges"] = [pair for pair in pairs if renamed.keys().isdisjoint((*pair, "".join(pair)))]
        if model.get("unk_token") in renamed:
            model["unk_token"] = renamed[model["unk_token"]]
        added = {token["content"]: token for token in body["added_tokens"]}
        whole = {"single_word": False, "lstrip": False, "rstrip": False, "special": True}
        for token, name in self._names.items():
            content = str(self._tokenizer.token_name(token))
            entry = added.setdefault(content, {"id": token, **whole})
            entry |= {"content": name, "normalized": False, "single_word": False, "special": True}
        cut = {"id": self._tokenizer.vocab_size, "content": self._cut, "normalized": False, **whole}
        body["added_tokens"] = [*sorted(added.values(), key=lambda token: token["id"]), cut]
        body["post_processor"] = None  # it may take spaces out of the offsets
        body["truncation"] = body["padding"] = None
        library = _Library.from_str(json.dumps(body))
        library.encode_special_tokens = False
        if any(library.token_to_id(name) != token for token, name in self._names.items()):
            raise SlmError(
                "E_TOKENIZER_INVALID",
                "os tokens especiais do tokenizador não têm os números que ele diz.",
                where="tokenizer.json",
                hint="Use um tokenizer.json do ptbr-slm ou da Hugging Face.",
            )
        return library
