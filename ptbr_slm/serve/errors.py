"""Faults in OpenAI's terms: `{"error": {"message", "type", "param", "code"}}`, with the right status.

openai-python 3 repeats 408, 409, 429 and every status from 500 on, twice and silently: what a second try
cannot change is a 400, or carries `x-should-retry: false`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from ptbr_slm.errors import SlmError

LONGEST_MESSAGE = 500
"""Characters of a message: what a client sent must not come back by the megabyte."""


class ApiError(Exception):
    """An answer that is not a success. Raised anywhere below a route; the app turns it into JSON."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """kind: OpenAI's `type`. param: the field it concerns. extra: further keys of the error object."""
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.kind = status, message, code, param, kind
        self.headers, self.extra = dict(headers or {}), dict(extra or {})

    def body(self) -> dict[str, Any]:
        """The JSON of the answer, or of a `data:` line in a stream that breaks."""
        return {
            "error": {
                "message": self.message[:LONGEST_MESSAGE],
                "type": self.kind,
                "param": self.param,
                "code": self.code,
                **self.extra,
            }
        }


class StreamBroken(Exception):
    """Raise it once a stream has sent its error object: the connection is broken off.

    A body that ended cleanly would look complete: openai-python raises nothing where `[DONE]` is missing.
    """


class ClientStalled(StreamBroken, TimeoutError):
    """A client does not read what is sent to it: it is cut off."""


def json_error(fault: ApiError) -> JSONResponse:
    """The answer that tells a fault."""
    return JSONResponse(fault.body(), fault.status, fault.headers)


_STATUS = {
    "E_PROMPT": (400, "invalid_prompt"),
    "E_PROMPT_TOO_LONG": (400, "context_length_exceeded"),
    "E_MESSAGES": (400, "invalid_messages"),
    "E_CHAT_TEMPLATE": (400, "chat_template_missing"),
    "E_SAMPLING": (400, "invalid_value"),
    "E_DEPENDENCY": (400, "not_supported"),
    "E_BUSY": (429, "queue_full"),
    "E_REQUEST_SIZE": (400, "request_too_large"),
    "E_MEMORY": (503, "out_of_memory"),
    "E_CLOSED": (503, "shutting_down"),
}
"""What the engine refuses -> (status, code)."""

_SAID = {
    "E_MEMORY": "Falta memória ao servidor agora: tente de novo daqui a pouco, ou peça menos de uma vez.",
    "E_CLOSED": "O servidor está parando, e o pedido foi interrompido: tente de novo daqui a pouco.",
}
"""In place of the engine's own sentences, which are for who runs the server."""


def as_api_error(error: Exception) -> ApiError:
    """The answer for any exception of a route. What is not the client's fault tells no detail."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, SlmError) and error.code in _STATUS:
        status, code = _STATUS[error.code]
        kind = {429: "rate_limit_error", 503: "server_error"}.get(status, "invalid_request_error")
        headers = {"retry-after": "1"} if status in (429, 503) else {}
        return ApiError(
            status,
            _SAID.get(error.code) or f"{error.message} {error.hint}",
            code=code,
            param=str(error.where) or None,
            kind=kind,
            headers=headers,
        )
    return ApiError(
        500,
        "Erro interno do servidor.",
        code="internal_error",
        kind="server_error",
        headers={"x-should-retry": "false"},
    )
