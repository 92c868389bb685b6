"""Server-sent events: what has come of each text, in one write as far as it came at once.

A stream that ends cleanly looks like success to openai-python, with or without `[DONE]`. So what goes wrong
after the first byte is sent as `data: {"error": ...}`, which that client raises, and the connection is broken
off within the chunked body (`StreamBroken`). What goes wrong before is an answer with a status.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ptbr_slm.runtime.results import GenerationResult, TokenLogprob
from ptbr_slm.serve.errors import ApiError, StreamBroken, as_api_error
from ptbr_slm.serve.middleware.record import record_of
from ptbr_slm.serve.openai.answers import Envelope, usage, usage_of
from ptbr_slm.serve.openai.body import StreamOptions
from ptbr_slm.serve.openai.generation import ClientGone, Generation, interrupted, watched

PING_S = 15.0
"""Seconds without an event after which a comment is sent: proxies close what is silent for 30 to 60 s."""

DONE = b"data: [DONE]\n\n"

_log = logging.getLogger("ptbr_slm.serve")

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def event(body: dict[str, Any]) -> bytes:
    """One event."""
    return f"data: {_encode(body)}\n\n".encode()


@dataclass(slots=True)
class Delta:
    """What has come of one text since its last event."""

    index: int
    """Of the choice: prompt · n + completion."""
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    result: GenerationResult | None = None
    """Of the whole text, once it is over."""


async def deltas(generation: Generation) -> AsyncGenerator[list[Delta]]:
    """What has come at once of all texts of a call, each at most once in a list.

    A delta waits until it has text or ends its text: tokens that only begin a character, or what may become a
    stop string, come with those that follow. Where the reader is slower than the engine a delta has several
    tokens, as in vLLM (v1/engine/output_processor.py, `RequestOutputCollector`).
    """
    waiting: dict[int, Delta] = {}
    call, n = generation.call, generation.n
    async for chunk in call:
        index = chunk.row * n + chunk.completion
        delta = waiting.get(index)
        if delta is None:
            delta = waiting[index] = Delta(index)
        delta.text += chunk.text
        if chunk.token >= 0:
            delta.tokens.append(chunk.token)
        if chunk.logprob is not None:
            delta.logprobs.append(chunk.logprob)
        if chunk.result is not None:
            delta.result = generation.count_in(chunk, chunk.result)
        if call.ready:
            continue
        whole = [each for each in waiting.values() if each.text or each.result is not None]
        for each in whole:
            del waiting[each.index]
        if whole:
            yield whole


class ServerSentEvents(Response):
    """Sends events as they come, and closes the call whatever happens. Subclasses say which events."""

    media_type = "text/event-stream"
    last = DONE
    """What follows the events of an answer that ended well."""

    def __init__(self, generation: Generation) -> None:
        self.status_code, self.background = 200, None
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"})
        self.generation = generation
        self._begun = False
        self._sent_at = 0.0

    def events(self) -> AsyncGenerator[bytes]:
        """What to write, some events at a time; raises where a text was cut off."""
        raise NotImplementedError

    def failure(self, fault: ApiError) -> bytes:
        """What to write where something went wrong in the middle."""
        return event(fault.body())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything. What goes wrong before the first byte is raised."""
        self._sent_at = asyncio.get_running_loop().time()
        try:
            async with watched(receive, self.generation.call), aclosing(self.events()) as events:
                pings = asyncio.create_task(self._ping(send))
                try:
                    async for data in events:
                        await self._send(send, data)
                finally:
                    pings.cancel()
        except ClientGone:
            return
        except StreamBroken:  # the client does not read: it would not read an error either
            raise
        except Exception as error:
            if not self._begun:
                raise
            await self._send(send, self.failure(self._noted(error)))
            raise StreamBroken from error
        await send({"type": "http.response.body", "body": self.last, "more_body": False})

    async def _send(self, send: Send, data: bytes) -> None:
        self._sent_at = asyncio.get_running_loop().time()
        if not self._begun:
            self._begun = True
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": data, "more_body": True})

    def _noted(self, error: Exception) -> ApiError:
        """The error for the client; the log has its code, and what is our own defect whole."""
        fault, record = as_api_error(error), record_of(self.generation.request)
        record.error = fault.code or ""
        if fault.status == 500:
            _log.error("defeito no pedido %s", record.id, exc_info=error)
        return fault

    async def _ping(self, send: Send) -> None:
        """A comment whenever nothing was sent for a while; a first one begins the answer."""
        loop = asyncio.get_running_loop()
        while True:
            wait = self._sent_at + PING_S - loop.time()
            await (asyncio.sleep(wait) if wait > 0 else self._send(send, b": ping\n\n"))


class EventStream(ServerSentEvents):
    """The chunks of completions and chat."""

    def __init__(
        self,
        generation: Generation,
        envelope: Envelope,
        choices: Callable[[Delta], list[dict[str, Any]]],
        options: StreamOptions | None,
    ) -> None:
        """envelope: makes a chunk of choices. choices: what to send for a delta, one chunk each."""
        super().__init__(generation)
        self._envelope, self._choices = envelope, choices
        self._with_usage = bool(options and options.include_usage)
        self._usage_so_far = bool(options and options.continuous_usage_stats)

    async def events(self) -> AsyncGenerator[bytes]:
        """What to write, all but the end."""
        generation, results = self.generation, dict[int, GenerationResult]()
        written, prompt_tokens = 0, sum(map(len, generation.prompts))
        more: dict[str, Any] = {"usage": None} if self._with_usage else {}
        async with aclosing(deltas(generation)) as arrivals:
            async for come in arrivals:
                results |= {delta.index: delta.result for delta in come if delta.result is not None}
                if self._usage_so_far:
                    written += sum(len(delta.tokens) for delta in come)
                    more = {"usage": usage_of(prompt_tokens, written)}
                found = [choice for delta in come for choice in self._choices(delta)]
                yield b"".join([event(self._envelope([choice], **more)) for choice in found])
        if len(results) < generation.count:
            raise interrupted()
        if self._with_usage:
            ordered = [results[index] for index in sorted(results)]
            yield event(self._envelope([], usage=usage(ordered, generation.n)))
