"""Tokens as people read them: a character that several tokens share stands in the one that begins it.

In a byte-level vocabulary an accented letter or an emoji may be two to four tokens. The first is written with
the whole character, those that go on with it by their bytes, `‹A7›`: the pieces that are text, joined, are
the text.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from typing import Any

from ptbr_slm.runtime.results import TokenLogprob
from ptbr_slm.tokenizer import Tokenizer

TEXT, BYTES, SPECIAL = "", "bytes", "special"
"""What a piece is: text, part of a character, or a token that is no text (`<|eos|>`)."""

Piece = dict[str, Any]
"""A token for the browser: `id`, `text`, `kind`, `bytes` (how many of the text's), `logprob` in nats and
`rank` (None where they are not known: nothing comes before the first), and `top`, its alternatives as
[id, logprob, text, kind], the most probable first."""


class TokenPieces:
    """The pieces of one text, token by token; they come when their last character is whole."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._begins_text = True
        self._pending = b""
        """Of a character that is not whole."""
        self._held: list[tuple[Piece, bytes]] = []

    def push(self, token: int, scored: TokenLogprob | None = None) -> list[Piece]:
        """The pieces that this token completes. scored: where its probability is known."""
        own = self._bytes_of(token)
        text, kind = spelled(self._tokenizer, token)
        piece: Piece = {"id": token, "text": text, "kind": kind, "bytes": len(own)}
        piece |= {"logprob": None, "rank": None, "top": []}
        if scored is not None:
            piece |= {"logprob": round(scored.logprob, 4), "rank": scored.rank}
            piece["top"] = [
                [other, round(logprob, 4), *spelled(self._tokenizer, other, self._pending)]
                for other, logprob in scored.top
            ]
        self._held.append((piece, own))
        self._pending = unfinished(self._pending + own)
        return self._complete() if kind == SPECIAL or not self._pending else []

    def finish(self) -> list[Piece]:
        """The rest, where the text ends within a character."""
        return self._complete()

    def _bytes_of(self, token: int) -> bytes:
        """Of the text; in some vocabularies its first token holds a space that the text has not."""
        own = self._tokenizer.token_bytes(token)
        if self._begins_text and token not in self._tokenizer.special_ids:
            self._begins_text = False
            return own[int(self._tokenizer.start_marks[token]) :]
        return own

    def _complete(self) -> list[Piece]:
        """What is held, each character moved to the token where it begins."""
        pieces = [piece for piece, _ in self._held]
        if self._tokenizer.is_byte_level or self._tokenizer.is_metaspace:
            texts = _characters_by_part([own for _, own in self._held])
            for piece, (text, kind) in zip(pieces, texts, strict=True):
                if text:
                    piece["text"], piece["kind"] = text, kind
        self._held, self._pending = [], b""
        return pieces


def spelled(tokenizer: Tokenizer, token: int, before: bytes = b"") -> tuple[str, str]:
    """(text, kind) of a token alone, or after the bytes of an unfinished character, which it may complete."""
    if token in tokenizer.special_ids:
        return str(tokenizer.token_name(token)), SPECIAL
    if not (tokenizer.is_byte_level or tokenizer.is_metaspace):
        return tokenizer.tokens([token])[0], TEXT
    own = tokenizer.token_bytes(token)
    if before:
        try:
            return (before + own).decode("utf-8"), TEXT
        except UnicodeDecodeError:
            pass
    return _characters_by_part([own])[0]


def pending_bytes(tokenizer: Tokenizer, ids: Iterable[int]) -> bytes:
    """The bytes at the end of a text that begin a character and do not end it."""
    pending = b""
    for token in ids:
        pending = unfinished(pending + tokenizer.token_bytes(token))
        if token in tokenizer.special_ids:
            pending = b""
    return pending


def unfinished(raw: bytes) -> bytes:
    """The end of `raw` that begins a character of UTF-8 and does not end it."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(raw)
    return decoder.getstate()[0]


def _characters_by_part(parts: Sequence[bytes]) -> list[tuple[str, str]]:
    """(text, kind) of each part: the characters that begin in it. A byte that is none of any is `‹A7›`."""
    raw = b"".join(parts)
    owners = [number for number, part in enumerate(parts) for _ in part]
    texts, kinds = [""] * len(parts), [TEXT] * len(parts)
    at = 0
    while at < len(raw):
        size = _character_size(raw, at)
        owner = owners[at]
        if size:
            texts[owner] += raw[at : at + size].decode("utf-8")
        else:
            texts[owner] += f"‹{raw[at]:02X}›"
            kinds[owner] = BYTES
        at += size or 1
    return list(zip(texts, kinds, strict=True))


def _character_size(raw: bytes, at: int) -> int:
    """Bytes of the character of UTF-8 that begins at `at`; 0 where none does."""
    for size in range(1, 5):
        try:
            raw[at : at + size].decode("utf-8")
        except UnicodeDecodeError:
            continue
        return size if at + size <= len(raw) else 0
    return 0
