"""From loading to the end: what a server still accepts, and how many requests it is answering."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from starlette.types import ASGIApp, Receive, Scope, Send

from ptbr_slm.serve.errors import ApiError, json_error
from ptbr_slm.serve.middleware.paths import POLLED, route_path


class Phase(Enum):
    """Where a server is in its life."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    """Running requests end; new ones are refused."""


class Lifecycle:
    """The phase, and the number of requests that are being answered.

    The number is written by the event loop's thread alone; other threads may read it.
    """

    def __init__(self, phase: Phase = Phase.READY) -> None:
        self.phase = phase
        self.running = 0


class Admission:
    """Lets requests in while the server is ready; 503 before and after, but to those that ask how it is.

    429 for those beyond what all slots and queues hold, from their headers alone: the engine's own E_BUSY
    comes after a body was read and tokenised; with it alone, 200 at once kept /health waiting for 1.2 s where
    they now do for 0.4 s (p99, two cores with 17 others waiting for them).
    """

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle, room: Callable[[], int]) -> None:
        """room: the most requests that may be in the server at once."""
        self._app, self._lifecycle, self._room = app, lifecycle, room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or route_path(scope) in POLLED:
            await self._app(scope, receive, send)
            return
        fault = None
        if self._lifecycle.phase is not Phase.READY:
            fault = not_ready(self._lifecycle.phase)
        elif scope["method"] == "POST" and self._lifecycle.running >= self._room():
            fault = _full()
        if fault is not None:
            scope["state"]["record"].error = fault.code
            await json_error(fault)(scope, receive, send)
            return
        self._lifecycle.running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._lifecycle.running -= 1


def _full() -> ApiError:
    message = "O servidor está ocupado: tente de novo daqui a pouco."
    headers = {"retry-after": "1"}
    return ApiError(429, message, code="queue_full", kind="rate_limit_error", headers=headers)


def not_ready(phase: Phase) -> ApiError:
    """503 with what to do: wait until the model is loaded, or look for the next server."""
    if phase is Phase.LOADING:
        message, code, headers = "O modelo ainda está sendo carregado.", "model_loading", {"retry-after": "2"}
    else:
        message, code = "O servidor está encerrando.", "shutting_down"
        headers = {"retry-after": "5", "connection": "close"}
    return ApiError(503, message, code=code, kind="server_error", headers=headers)
