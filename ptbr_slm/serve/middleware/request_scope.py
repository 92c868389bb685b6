"""Around every request: its id, its record, and an answer to whatever escapes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ptbr_slm.serve.errors import ApiError, ClientStalled, StreamBroken, as_api_error, json_error
from ptbr_slm.serve.middleware.late_body import LateBody
from ptbr_slm.serve.middleware.paths import QUIET, route_path
from ptbr_slm.serve.middleware.record import CLIENT_LEFT, RequestRecord, printable, request_id

log = logging.getLogger("ptbr_slm.serve")


class RequestScope:
    """Gives each request `request.state.record` and its answer `x-request-id`, and logs it when it is over.

    An exception before the answer began becomes a JSON error. After that the connection is broken off: a
    body that ends cleanly would look complete to the client.
    """

    def __init__(self, app: ASGIApp, over: Callable[[RequestRecord], None] | None = None) -> None:
        """over: called with each record once its request is over."""
        self._app, self._over = app, over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = printable(route_path(scope))
        record = RequestRecord(request_id(Headers(scope=scope).get("x-request-id")), scope["method"], path)
        scope.setdefault("state", {})["record"] = record
        late = LateBody(scope, receive, send)
        complete = False

        async def watched_receive() -> Message:
            message = await late.receive()
            if message["type"] == "http.disconnect" and not complete:
                record.left = True
            return message

        async def marked_send(message: Message) -> None:
            nonlocal complete
            if message["type"] == "http.response.start":
                record.status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = record.id
            elif message["type"] == "http.response.body":
                complete = not message.get("more_body", False)
            await late.send(message)

        try:
            _check_framing(Headers(scope=scope))
            await self._app(scope, watched_receive, marked_send)
            if record.status and not complete and not record.left:
                raise StreamBroken
        except StreamBroken as error:
            stalled = isinstance(error, ClientStalled)
            record.error = record.error or ("client_stalled" if stalled else "stream_broken")
            raise
        except Exception as error:
            if record.left:
                return  # nobody is there to be answered
            fault = as_api_error(error)
            record.error = record.error or fault.code or ""
            if fault.status == 500:
                log.error("defeito no pedido %s", record.id, exc_info=error)
            if record.status:
                raise StreamBroken from error
            await json_error(fault)(scope, receive, marked_send)
        finally:
            record.route = getattr(scope.get("route"), "path", "")
            record.path = record.route or record.path
            record.total_s = time.perf_counter() - record.started
            if record.left and not record.status:
                record.status = CLIENT_LEFT
            quiet = record.path in QUIET and record.status == 200
            log.log(logging.DEBUG if quiet else logging.INFO, "%s", record.id, extra={"record": record})
            if self._over is not None:
                self._over(record)


def _check_framing(headers: Headers) -> None:
    """Refuse two lengths of one body: a proxy may believe the other one, and what it takes for a body would
    here be the next request (RFC 9112, 6.1). httptools refuses it by itself, h11 does not.
    """
    if "transfer-encoding" in headers and "content-length" in headers:
        message = "O pedido diz de duas maneiras onde o corpo termina."
        raise ApiError(400, message, code="invalid_request", headers={"connection": "close"})
