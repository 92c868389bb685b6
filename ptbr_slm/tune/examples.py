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
        _, ids, answer = self._fitting(conversation.messages, lambda messages: self._encode(messages))
        return self._example(
            ids, answer if self._loss == "answers" else np.ones_like(answer), conversation.where
        )

    def _preference(self, pair: Preference) -> tuple[Example, Example]:
        """The two answers after the same prompt, with the same turns left; only the last answer is learnt."""

        def longer(prompt: Sequence[Message]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
            both = [
                self._encode([*prompt, Message("assistant", text)]) for text in (pair.chosen, pair.rejected)
            ]
            return max(both, key=lambda encoded: len(encoded[0]))

        prompt, _, _ = self._fitting(pair.prompt, longer)
        start = len(self._chat.prompt(prompt))
        examples = []
        for text in (pair.chosen, pair.rejected):
            ids, answer = self._encode([*prompt, Message("assistant", text)])
            last = answer & (np.arange(len(ids)) >= start)
            examples.append(self._example(ids, last, pair.where))
        return examples[0], examples[1]

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
            yield self._example(piece, np.ones(len(piece), bool), text.where)

    def _fitting(
        self,
        messages: Sequence[Message],
        encode: Callable[[Sequence[Message]], tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]],
    ) -> tuple[Sequence[Message], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """(messages, ids, answer marks) with as few of the oldest exchanges left out as possible.

        Raises Unusable where the last exchange alone is too long.
        """
        ids, answer = encode(messages)
        if len(ids) - 1 <= self._seq_len:
            return messages, ids, answer
        first = int(messages[0].role == "system")
        fits: tuple[Sequence[Message], npt.NDArray[np.int64], npt.NDArray[np.bool_]] | None = None
        low, high = 1, (len(messages) - first - 1) // 2  # exchanges to leave out, by bisection
        while low <= high:
            middle = (low + high) // 2
            kept = [*messages[:first], *messages[first + 2 * middle :]]
            ids, answer = encode(kept)
            if len(ids) - 1 <= self._seq_len:
                fits, high = (kept, ids, answer), middle - 1
            else:
                low = middle + 1
        if fits is None:
            raise Unusable("too_long")
        self.shortened += 1
        return fits

    def _encode(self, messages: Sequence[Message]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        try:
            encoded = self._chat.encode(messages)
        except SlmError as error:
            if error.code != "E_CHAT_TEMPLATE" or not self.encoded:
                raise
            raise Unusable("template") from error
        self.encoded += 1
        return encoded.ids, encoded.answer

    def _example(self, ids: npt.NDArray[np.int64], target: npt.NDArray[np.bool_], where: str) -> Example:
        target = target.copy()
        target[:1] = False
        if not target.any():
            raise Unusable("masked")
        return Example(ids, target, where)
