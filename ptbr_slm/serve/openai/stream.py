"""Server-sent events: what has come of each text, in one write as far as it came at once.

A stream that ends cleanly looks like success to openai-python, with or without `[DONE]`. So what goes wrong
after the first byte is sent as `data: {"error": ...}`, which that client raises, and then the connection is
broken off in the middle of its chunked body. What goes wrong before is an answer with a status.
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

from ptbr_slm.runtime.engine_loop import Call
from ptbr_slm.runtime.results import GenerationResult, TokenLogprob
from ptbr_slm.serve.errors import ApiError, as_api_error
from ptbr_slm.serve.openai.generation import ClientGone, finished, unfinished, watched

PING_S = 15.0
"""Seconds without an event after which a comment is sent: proxies close what is silent for 30 to 60 s."""

DONE = b"data: [DONE]\n\n"

_log = logging.getLogger("ptbr_slm.serve")


def event(body: dict[str, Any]) -> bytes:
    """One event."""
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


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


async def deltas(call: Call, n: int) -> AsyncGenerator[list[Delta]]:
    """What has come at once of all texts of a call, each at most once in a list.

    A delta waits until it has text or ends its text: tokens that only begin a character, or what may become a
    stop string, come with those that follow. Where the reader is slower than the engine a delta has several
    tokens, as in vLLM (v1/engine/output_processor.py, `RequestOutputCollector`).
    """
    waiting: dict[int, Delta] = {}
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
            delta.result = finished(chunk.result)
        if call.ready:
            continue
        whole = [each for each in waiting.values() if each.text or each.result is not None]
        for each in whole:
            del waiting[each.index]
        if whole:
            yield whole


class EventStream(Response):
    """Sends events as they come, and closes the call whatever happens."""

    media_type = "text/event-stream"

    def __init__(
        self,
        call: Call,
        n: int,
        choices: Callable[[Delta], list[dict[str, Any]]],
        envelope: Callable[..., dict[str, Any]],
        usage: Callable[[list[GenerationResult]], dict[str, Any]] | None,
        count: int,
    ) -> None:
        """choices: what to send for a delta, an event each. envelope: a chunk around choices. usage: of the
        last chunk, None for none. count: texts that there must be.
        """
        self.status_code, self.background = 200, None
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"})
        self._call, self._n, self._count = call, n, count
        self._choices, self._envelope, self._usage = choices, envelope, usage
        self._begun = False
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything; raises only what comes before the first byte."""
        loop = asyncio.get_running_loop()
        self._sent_at = loop.time()
        async with watched(receive, self._call) as gone, aclosing(self._events()) as events:
            pings = asyncio.create_task(self._ping(send))
            try:
                async for data in events:
                    await self._send(send, data)
                await send({"type": "http.response.body", "body": DONE, "more_body": False})
            except (ClientGone, OSError):
                return
            except Exception as error:
                if gone.done() and not gone.cancelled():
                    return
                if not self._begun:
                    raise
                await self._break_off(send, as_api_error(error), error)
            finally:
                pings.cancel()

    async def _events(self) -> AsyncGenerator[bytes]:
        """What to write, all but the end."""
        results: dict[int, GenerationResult] = {}
        more = {} if self._usage is None else {"usage": None}
        async with aclosing(deltas(self._call, self._n)) as arrivals:
            async for come in arrivals:
                results |= {delta.index: delta.result for delta in come if delta.result is not None}
                found = [choice for delta in come for choice in self._choices(delta)]
                yield b"".join([event(self._envelope([choice], **more)) for choice in found])
        if len(results) < self._count:
            raise unfinished()
        if self._usage is not None:
            ordered = [results[index] for index in sorted(results)]
            yield event(self._envelope([], usage=self._usage(ordered)))

    async def _send(self, send: Send, data: bytes) -> None:
        if not self._begun:
            self._begun = True
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        self._sent_at = asyncio.get_running_loop().time()
        await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _ping(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        while True:
            wait = self._sent_at + PING_S - loop.time()
            await (asyncio.sleep(wait) if wait > 0 else self._send(send, b": ping\n\n"))

    async def _break_off(self, send: Send, fault: ApiError, error: Exception) -> None:
        """The error as an event. Without an end of the body, uvicorn breaks off the connection."""
        _log.error("stream interrompido: %s (%s)", fault.code, type(error).__name__)
        await self._send(send, event(fault.body()))
