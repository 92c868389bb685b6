"""A call whose chunks are counted on their way to the route."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ptbr_slm.runtime.engine_loop import Call
from ptbr_slm.runtime.results import GenerationChunk
from ptbr_slm.runtime.sequence import SequenceState
from ptbr_slm.serve.metrics.texts import ModelCounters

REPORT_EVERY = 32
"""Tokens of a call that are counted together: one lock for them."""


class FollowedCall:
    """A `Call` whose chunks are counted as they are read; its reader closes it as one."""

    def __init__(self, call: Call, counters: ModelCounters, since: float) -> None:
        """since: `time.perf_counter()` when the request came."""
        self._call = call
        self._counters = counters
        self._started = since
        self._last: dict[tuple[int, int], float] = {}
        """(row, completion) of texts that have begun -> when the last token was made, s."""
        self._prompts: set[int] = set()
        """Rows whose prompt is counted."""
        self._open = len(call.sequences)
        self._failed = False
        self._longest = 0
        """Tokens of the longest text that ended."""
        self._tokens = 0
        self._gaps: list[float] = []

    @property
    def sequences(self) -> tuple[SequenceState, ...]:
        """The call's own."""
        return self._call.sequences

    @property
    def ready(self) -> bool:
        """Whether chunks are there that the reader has not taken."""
        return bool(self._call.ready)

    async def __aiter__(self) -> AsyncIterator[GenerationChunk]:
        """The chunks, for a coroutine; raises as the call."""
        try:
            async for chunk in self._call:
                self._count(chunk)
                yield chunk
        except Exception:
            self._failed = True
            raise

    def close(self) -> None:
        """End what still runs; from any thread, again and again. Never waits."""
        self._call.close()
        self._report()
        if self._open:
            self._counters.ended("error" if self._failed else "cancelled", self._open)
            self._open = 0

    def _count(self, chunk: GenerationChunk) -> None:
        if not self._open:  # closed: what was not read by then is not counted
            return
        text = chunk.row, chunk.completion
        if chunk.token >= 0:
            self._tokens += 1
            before = self._last.get(text)
            self._last[text] = chunk.at
            if before is None:
                self._counters.first_token(chunk.at - self._started)
            else:
                self._gaps.append(chunk.at - before)
                if len(self._gaps) >= REPORT_EVERY:
                    self._report()
        if chunk.result is not None:
            self._open -= 1
            self._report()
            first = chunk.row not in self._prompts
            self._prompts.add(chunk.row)
            self._counters.finished(chunk.result, chunk.at - self._started, first_of_prompt=first)
            self._longest = max(self._longest, len(chunk.result.tokens))
            if not self._open:
                self._counters.request_finished(self._longest)

    def _report(self) -> None:
        self._counters.tokens(self._tokens, self._gaps)
        self._tokens, self._gaps = 0, []
