"""Conversations as token ids, with a mark at each token that is learnt.

A conversation that is longer than a sequence loses whole turns: the oldest question and its answer first. The
system message and the last exchange stay; where even these do not fit, the conversation is skipped. An answer
is never cut, since a model that learns to end a cut answer learns to end anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ptbr_slm.chat.encoder import EncodedChat
from ptbr_slm.chat.format import ChatFormat
from ptbr_slm.chat.messages import Message
from ptbr_slm.data.encode import Encoder
from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.tune.conversations import Conversation, Item, PlainText, Preference, Unusable

LOSSES = ("answers", "all")
"""What is learnt: what the assistant writes, or every token."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """What a model sees of a conversation, and what of it is learnt."""

    ids: npt.NDArray[np.int64]
    """(T,)"""
    target: npt.NDArray[np.bool_]
    """(T,) True for tokens that count in the loss; never the first, which nothing predicts."""
    where: str = ""
    """The file and the line, where they are known."""

    @property
    def targets(self) -> int:
        """Tokens that are learnt."""
        return int(self.target.sum())


class ExampleEncoder:
    """Makes examples of what was read, for sequences of at most `seq_len` positions."""

    def __init__(self, chat: ChatFormat, tokenizer: Tokenizer, *, seq_len: int, loss: str) -> None:
        """loss: one of `LOSSES`. An example of n tokens fills n - 1 positions: the last is only a target."""
        self._chat, self._tokenizer, self._seq_len, self._loss = chat, tokenizer, seq_len, loss
        self._documents: Encoder | None = None
        self.encoded = 0
        """Conversations that the template has taken."""
        self.shortened = 0
        """Conversations that have lost turns."""

    def examples(self, item: Item) -> tuple[Example, ...]:
        """One example; of a pair of answers two (the wanted one first), of a long text its pieces.

        Raises Unusable (`too_long`, `masked`, `template`), and E_CHAT_TEMPLATE where the template refuses the
        very first conversation.
        """
        if isinstance(item, Conversation):
            return (self._conversation(item),)
        if isinstance(item, Preference):
            return self._preference(item)
        return tuple(self._text(item))

    def _conversation(self, conversation: Conversation) -> Example:
        _, encoded = self._fitting(conversation.messages, self._encode)
        target = encoded.answer if self._loss == "answers" else np.ones(len(encoded.ids), bool)
        return _example(encoded.ids, target, conversation.where)

    def _preference(self, pair: Preference) -> tuple[Example, Example]:
        """The two answers after the same prompt, with the same turns left; only the last answer is learnt."""

        def both(prompt: Sequence[Message]) -> list[EncodedChat]:
            return [
                self._encode([*prompt, Message("assistant", text)]) for text in (pair.chosen, pair.rejected)
            ]

        def longer(prompt: Sequence[Message]) -> EncodedChat:
            return max(both(prompt), key=lambda encoded: len(encoded.ids))

        prompt, _ = self._fitting(pair.prompt, longer)
        start = len(self._chat.prompt(prompt))
        chosen, rejected = (
            _example(one.ids, one.answer & (np.arange(len(one.ids)) >= start), pair.where)
            for one in both(prompt)
        )
        return chosen, rejected

    def _text(self, text: PlainText) -> Iterator[Example]:
        """A text with its begin and end tokens, cut where a sequence is full; each piece begins with the last
        token of the one before.
        """
        if self._documents is None:
            self._documents = Encoder(self._tokenizer)
        (ids,) = self._documents.encode([text.text])
        whole = ids.astype(np.int64)
        for start in range(0, max(len(whole) - 1, 1), self._seq_len):
            piece = whole[start : start + self._seq_len + 1]
            yield _example(piece, np.ones(len(piece), bool), text.where)

    def _fitting(
        self, messages: Sequence[Message], encode: Callable[[Sequence[Message]], EncodedChat]
    ) -> tuple[Sequence[Message], EncodedChat]:
        """The messages, and what `encode` makes of them, with as few of the oldest exchanges left out as
        possible. Raises Unusable where the last exchange alone is too long.
        """
        encoded = encode(messages)
        if len(encoded.ids) - 1 <= self._seq_len:
            return messages, encoded
        first = int(messages[0].role == "system")
        fits: tuple[Sequence[Message], EncodedChat] | None = None
        low, high = 1, (len(messages) - first - 1) // 2  # exchanges to leave out, by bisection
        while low <= high:
            middle = (low + high) // 2
            kept = [*messages[:first], *messages[first + 2 * middle :]]
            encoded = encode(kept)
            if len(encoded.ids) - 1 <= self._seq_len:
                fits, high = (kept, encoded), middle - 1
            else:
                low = middle + 1
        if fits is None:
            raise Unusable("too_long")
        self.shortened += 1
        return fits

    def _encode(self, messages: Sequence[Message]) -> EncodedChat:
        try:
            encoded = self._chat.encode(messages)
        except SlmError as error:
            if error.code != "E_CHAT_TEMPLATE" or not self.encoded:
                raise
            raise Unusable("template") from error
        self.encoded += 1
        return encoded


def _example(ids: npt.NDArray[np.int64], target: npt.NDArray[np.bool_], where: str) -> Example:
    """An example whose first token is no target. Raises Unusable where nothing is learnt."""
    target = target.copy()
    target[:1] = False
    if not target.any():
        raise Unusable("masked")
    return Example(ids, target, where)
