"""What a request may cost before a route sees it, and what a client that does not read may hold."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ptbr_slm.serve.config import ServeConfig
from ptbr_slm.serve.errors import ApiError, ClientStalled, json_error
from ptbr_slm.serve.middleware.json_body import check_json_object
from ptbr_slm.serve.middleware.paths import JSON_BODIES, route_path

_CLOSE = {"connection": "close"}
"""For answers that come before the whole body was read: what follows on that connection is no request."""


class Limits:
    """Reads a JSON body whole, in bounded size and time, checks it, and hands it on; bounds each write.

    413 for too large a body, 408 for too slow a one, 415 for another kind, 400 for what `json_body` refuses.
    A client that does not read for `write_timeout_s` is cut off, and what it waited for ends.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig) -> None:
        self._app, self._config = app, config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "POST" and route_path(scope) in JSON_BODIES:
            try:
                body = await self._json_body(Headers(scope=scope), receive)
            except ApiError as fault:
                scope["state"]["record"].error = fault.code
                await json_error(fault)(scope, receive, send)
                return
            if body is None:
                return  # the client left
            receive = _replayed(body, receive)
        await self._app(scope, receive, self._bounded(send))

    async def _json_body(self, headers: Headers, receive: Receive) -> bytes | None:
        try:
            async with asyncio.timeout(self._config.body_timeout_s):
                body = await self._read(headers, receive)
        except TimeoutError:
            limit = self._config.body_timeout_s
            message = f"O corpo do pedido não chegou inteiro em {limit:g} s."
            raise ApiError(408, message, code="request_timeout", headers=_CLOSE) from None
        if body is not None:
            _check_kind(headers)
            check_json_object(body)
        return body

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        """The body; None where the client left. Raises 413, or TimeoutError from outside."""
        limit = self._config.max_body_bytes
        declared = headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
            raise self._too_large()
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > limit:
                raise self._too_large()
        return bytes(body)

    def _too_large(self) -> ApiError:
        message = f"O corpo do pedido passa de {self._config.max_body_bytes} bytes."
        return ApiError(413, message, code="body_too_large", headers=_CLOSE)

    def _bounded(self, send: Send) -> Send:
        stalled = False

        async def bounded(message: Message) -> None:
            nonlocal stalled
            if stalled:  # what a route still wants to tell of it, nobody reads
                raise ClientStalled
            try:
                async with asyncio.timeout(self._config.write_timeout_s):
                    await send(message)
            except TimeoutError:
                stalled = True
                raise ClientStalled from None

        return bounded


def _check_kind(headers: Headers) -> None:
    """Raises 415 for what is not announced as plain JSON in UTF-8."""
    kind, _, parameters = headers.get("content-type", "").lower().partition(";")
    kind = kind.strip()
    charset = parameters.partition("charset=")[2].strip(' "') or "utf-8"
    if not (kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))):
        shown = f"veio {kind[:60]!r}" if kind else "ele não veio"
        message = f"O corpo deve ser JSON, com o cabeçalho Content-Type: application/json; {shown}."
    elif charset not in ("utf-8", "utf8", "us-ascii"):
        message = f"O corpo deve estar em UTF-8; veio charset={charset[:40]!r}."
    elif headers.get("content-encoding", "identity").lower() != "identity":
        message = "O corpo comprimido (Content-Encoding) não é aceito."
    else:
        return
    raise ApiError(415, message, code="unsupported_media_type")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` with a body that was read already."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
