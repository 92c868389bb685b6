"""A connection that may not keep the server waiting for headers, nor send them without end.

uvicorn 0.54 has a time limit between two requests and none for the headers of one; httptools, unlike h11,
has no limit on their size. A client that opens connections and sends a byte a minute would hold them all.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as HttpProtocol
else:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol as HttpProtocol

HEADERS_TIMEOUT_S = 10.0
"""Seconds from a connection's, or a request's, first byte to the end of its headers."""

MOST_HEADER_BYTES = 64 << 10
"""Bytes of a request line and its headers. Apache's and nginx's limits are 8 KiB a line, 32 to 100 lines."""


class GuardedConnection(HttpProtocol):
    """uvicorn's HTTP protocol, httptools' or h11's, with those two limits.

    The first also bounds how long the rest of a body may come whose request is answered already.
    """

    headers_timeout_s = HEADERS_TIMEOUT_S

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._deadline: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._in_body = False
        """Whether a request's headers have come and its body has not (httptools; h11 knows by itself)."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected: its first headers are due."""
        super().connection_made(transport)
        self._set_deadline()

    def data_received(self, data: bytes) -> None:
        """Some bytes came. Headers that began and are not over yet are waited for, within limits."""
        in_body = self._body_is_due()
        super().data_received(data)
        if self.transport.is_closing() or not (self.cycle is None or self.cycle.response_complete):
            self._clear_deadline()
            return
        if self._deadline is None:
            self._set_deadline()
        if not in_body and not self._body_is_due():
            self._header_bytes += len(data)
        if self._header_bytes > MOST_HEADER_BYTES:
            self._refuse(b"431 Request Header Fields Too Large")

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._clear_deadline()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """httptools has read a request's headers."""
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """httptools has read a request's body, an empty one too."""
        self._in_body = False
        super().on_message_complete()

    def _body_is_due(self) -> bool:
        conn = getattr(self, "conn", None)  # h11's
        return self._in_body if conn is None else str(conn.their_state) == "SEND_BODY"

    def _set_deadline(self) -> None:
        self._deadline = self.loop.call_later(self.headers_timeout_s, self._too_late)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline, self._header_bytes = None, 0

    def _too_late(self) -> None:
        if self._header_bytes:
            self._refuse(b"408 Request Timeout")
        elif not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, status: bytes) -> None:
        self._clear_deadline()
        if not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
            self.transport.close()


def cut_clients_that_do_not_read(listening: socket.socket, seconds: float) -> None:
    """Let the kernel end a connection whose client left what was sent unread for so long, where it can.

    Accepted sockets inherit TCP_USER_TIMEOUT (Linux, RFC 5482), which counts a window that stays shut too.
    uvicorn only closes its side of such a connection, which frees the request, and keeps the socket until
    the client goes.
    """
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        listening.setsockopt(socket.IPPROTO_TCP, option, int(seconds * 1000))
