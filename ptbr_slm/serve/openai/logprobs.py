"""Log probabilities on the wire: the four parallel lists of completions, the objects of chat.

A byte-level token may hold a part of a character. In a text's own list of tokens it is then an empty piece,
and the token that completes the character is the whole character: the pieces joined are the text, and each
offset is where a piece begins in it. A token that was not chosen is spelled as the text would have gone on.
Special tokens are named (`<|eos|>`): they are no part of the text, and take no room in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ptbr_slm.runtime.results import TokenLogprob
from ptbr_slm.tokenizer import Tokenizer


def token_text(tokenizer: Tokenizer, token: int, before: bytes = b"") -> str:
    """How a token is written alone, or after the bytes of an unfinished character.

    OpenAI's way for what is no UTF-8: `bytes:\\xc3`.
    """
    if token in tokenizer.special_ids or not (tokenizer.is_byte_level or tokenizer.is_metaspace):
        return tokenizer.tokens([token])[0]
    own = tokenizer.token_bytes(token)
    for raw in (before + own, own):
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in own)


class TextLogprobs:
    """The `logprobs` of one choice of a completion, piece by piece where it is streamed."""

    def __init__(self, tokenizer: Tokenizer, most: int, *, ids_as_tokens: bool, continuation: bool) -> None:
        """most: alternatives to name. ids_as_tokens: vLLM's `return_tokens_as_token_ids`. continuation: the
        text goes on from a prompt.
        """
        self._tokenizer, self._most, self._ids_as_tokens = tokenizer, most, ids_as_tokens
        self._decoder = tokenizer.stream_decoder(continuation=continuation)
        self._offset = 0

    def prompt(self, ids: Sequence[int], known: Sequence[TokenLogprob | None]) -> dict[str, Any]:
        """Of an echoed prompt; what follows is a text of its own. Call it first."""
        found = self._lists(ids, known, last=True)
        self._decoder = self._tokenizer.stream_decoder(continuation=True)
        return found

    def generated(self, known: Sequence[TokenLogprob], text_length: int | None) -> dict[str, Any]:
        """Of generated tokens.

        text_length: of the whole text in characters, where these are its last tokens: one that only served
        to recognise a stop string begins at the end of the text.
        """
        found = self._lists([each.token for each in known], known, last=text_length is not None)
        if text_length is not None:
            found["text_offset"] = [min(offset, text_length) for offset in found["text_offset"]]
        return found

    def _lists(
        self, ids: Sequence[int], known: Sequence[TokenLogprob | None], *, last: bool
    ) -> dict[str, Any]:
        names, offsets, tops = [], [], []
        for number, (token, logprob) in enumerate(zip(ids, known, strict=True)):
            before = self._decoder.pending
            piece = self._decoder.push(token)
            if last and number == len(ids) - 1:
                piece += self._decoder.finish()
            name = piece
            if self._ids_as_tokens:
                name = f"token_id:{token}"
            elif token in self._tokenizer.special_ids:
                name = piece or token_text(self._tokenizer, token)  # U+FFFD, where it cuts a character off
            names.append(name)
            offsets.append(self._offset)
            tops.append(None if logprob is None else self._top(name, logprob, before))
            self._offset += len(piece)
        values = [None if each is None else each.logprob for each in known]
        return {"tokens": names, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}

    def _top(self, name: str, logprob: TokenLogprob, before: bytes) -> dict[str, float]:
        """The alternatives by name, the most probable first; the chosen token too, where it is none."""
        found: dict[str, float] = {}
        for token, value in logprob.top[: self._most]:
            if token == logprob.token:
                other = name
            elif self._ids_as_tokens:
                other = f"token_id:{token}"
            else:
                other = token_text(self._tokenizer, token, before)
            if other != name or token == logprob.token:
                found.setdefault(other, value)
        return found if name in found else found | {name: logprob.logprob}


def joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two `logprobs` one after the other: an echoed prompt's and the text's."""
    return {name: first[name] + second[name] for name in first}


def chat_logprobs(
    tokenizer: Tokenizer, known: Sequence[TokenLogprob], *, ids_as_tokens: bool = False
) -> dict[str, Any]:
    """The `logprobs` of a chat's choice. `bytes` of all tokens joined are the text in UTF-8."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        special = token in tokenizer.special_ids
        return {
            "token": f"token_id:{token}" if ids_as_tokens else token_text(tokenizer, token),
            "logprob": logprob,
            "bytes": None if special else list(tokenizer.token_bytes(token)),
        }

    content = [
        entry(each.token, each.logprob) | {"top_logprobs": [entry(*other) for other in each.top]}
        for each in known
    ]
    return {"content": content, "refusal": None}


def prompt_logprobs(
    tokenizer: Tokenizer, known: Sequence[TokenLogprob | None], most: int
) -> list[dict[str, Any] | None]:
    """vLLM's `prompt_logprobs`: for each token of the prompt its candidates by id, None for the first.

    most: alternatives besides the token itself.
    """

    def candidates(each: TokenLogprob) -> dict[str, Any]:
        rank_of = {token: rank for rank, (token, _) in enumerate(each.top, 1)}
        rank_of[each.token] = each.rank
        values = dict(each.top[:most]) | {each.token: each.logprob}
        return {
            str(token): {
                "logprob": value,
                "rank": rank_of[token],
                "decoded_token": token_text(tokenizer, token),
            }
            for token, value in values.items()
        }

    return [None if each is None else candidates(each) for each in known]
