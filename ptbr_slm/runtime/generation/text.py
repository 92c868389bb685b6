"""Text of one row from its tokens: whole characters, and stop strings found across token borders."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from ptbr_slm.tokenizer import Tokenizer


class StopFilter:
    """Lets text through until a stop string is complete; holds back only what could still begin one.

    The stop string that is complete first wins, whatever the pieces in which the text arrives. A stop string
    in another normal form (NFD, as macOS's names of files) is looked for as it is and in NFC, which
    tokenizers make.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(dict.fromkeys((*stops, *(unicodedata.normalize("NFC", stop) for stop in stops))))
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """The part of the text so far that is safe to show."""
        if not self._stops or self.stopped:
            return "" if self.stopped else text
        pending = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := pending.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return pending[: min(found)[1]]
        safe = len(pending) - self._overlap(pending)
        self._held = pending[safe:]
        return pending[:safe]

    def finish(self) -> str:
        """What was held back, when the text ends without a stop string."""
        held, self._held = self._held, ""
        return held

    def _overlap(self, pending: str) -> int:
        """Length of the longest end of `pending` that begins a stop string."""
        longest = max(map(len, self._stops)) - 1
        for length in range(min(longest, len(pending)), 0, -1):
            end = pending[-length:]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0


class TextStream:
    """Tokens in, text out: UTF-8 decoding, then the stop strings."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]) -> None:
        self._decoder = tokenizer.stream_decoder(continuation=True)
        self._filter = StopFilter(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop string is complete."""
        return self._filter.stopped

    def push(self, token: int) -> str:
        """The text that `token` completes."""
        return self._filter.push(self._decoder.push(token))

    def finish(self) -> str:
        """The rest, when no more tokens come."""
        return self._filter.push(self._decoder.finish()) + self._filter.finish()
