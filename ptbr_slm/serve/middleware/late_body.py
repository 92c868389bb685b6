"""An answer that closes the connection, to a client that is still sending."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

MOST_BYTES = 8 << 20
"""Bytes that are read and dropped before such an answer."""

LONGEST_S = 2.0
"""Seconds that such an answer waits for the rest of the body."""


class LateBody:
    """`receive` and `send` of one request; what is left of its body is dropped before the connection closes.

    A socket that is closed while bytes wait in it is reset, and a client that writes its whole body before
    it reads then meets the reset and not the answer (RFC 9112, 9.6; nginx calls it `lingering_close`).
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._waits = "expect" in Headers(scope=scope)
        """Whether the client sends its body only after our leave, which the first `receive` gives."""
        self._whole = False

    async def receive(self) -> Message:
        """The next message of the client."""
        self._waits = False
        message = await self._receive()
        self._whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Answer, after the rest of the body where the connection closes. 408 says that it does not come."""
        if message["type"] == "http.response.start" and message["status"] != 408:
            closes = Headers(raw=message.get("headers", [])).get("connection", "").lower() == "close"
            if closes and not self._whole and not self._waits:
                await self._drop_the_rest()
        await self._send(message)

    async def _drop_the_rest(self) -> None:
        dropped = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_S):
                while not self._whole and dropped < MOST_BYTES:
                    dropped += len((await self.receive()).get("body", b""))
