"""JSON over HTTP, asked again while the server is busy or away."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

from ptbr_slm.errors import SlmError

API_KEY = "OPENAI_API_KEY"
"""The environment variable that other clients of OpenAI-compatible servers read too."""
_TRIES = 6
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed."""
_NO_KEY = (401, 403)


class Refused(Exception):
    """The server answers that the request itself is wrong (400 to 499), in its own words."""


class JsonClient:
    """Asks one server, with the key of `API_KEY` where it is set."""

    def __init__(self, url: str, timeout_s: float, pause: Callable[[float], None] = time.sleep) -> None:
        """timeout_s: of one answer. pause: called with the seconds to wait before a further try."""
        self._url, self._timeout_s, self._pause = url, timeout_s, pause
        self._opener = _opener(url)

    def get(self, path: str) -> Any:
        """The JSON at a path. Raises as `post`."""
        return self._ask(path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that answers `body`.

        Raises `Refused`, or E_SERVER where nobody answers, a key is wanted or the answer is no JSON.
        """
        return self._ask(path, json.dumps(body).encode())

    def _ask(self, path: str, body: bytes | None) -> Any:
        request = Request(self._url + path, body, {"Content-Type": "application/json"})
        if key := os.environ.get(API_KEY):
            # Not passed on to where a redirect leads.
            request.add_unredirected_header("Authorization", f"Bearer {key}")
        for attempt in range(_TRIES):
            wait = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt)
            try:
                with self._opener.open(request, timeout=self._timeout_s) as answer:
                    content = answer.read()
                break
            except HTTPError as error:
                if error.code in _NO_KEY:
                    raise self._fault(
                        f"o servidor recusou o acesso (HTTP {error.code}).", f"export {API_KEY}=SUA_CHAVE"
                    ) from error
                if error.code not in _PASSING and error.code < 500:
                    raise Refused(_message(error)) from error
                failure: Exception = error
                wait = max(wait, min(_LONGEST_PAUSE_S, _seconds(error.headers.get("Retry-After"))))
            except (OSError, HTTPException) as error:  # refused, reset, cut, timed out
                failure = error
            if attempt + 1 < _TRIES:
                self._pause(wait)
        else:
            reason = failure.reason if type(failure) is URLError else failure
            raise self._fault(
                f"o servidor não respondeu depois de {_TRIES} tentativas ({reason}).",
                "Confira se ele está no ar e se o endereço está certo, e repita o comando.",
            ) from failure
        try:
            return json.loads(content)
        except ValueError as error:
            raise self._fault(
                f"a resposta de {path} não é JSON.",
                "O endereço deve ser o de um servidor compatível com OpenAI, como http://localhost:8000",
            ) from error

    def _fault(self, message: str, hint: str) -> SlmError:
        return SlmError("E_SERVER", message, where=self._url, hint=hint)


def _opener(url: str) -> OpenerDirector:
    """Servers on this machine are asked directly, whatever proxy the environment names."""
    local = urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
    return build_opener(ProxyHandler({})) if local else build_opener()


def _message(error: HTTPError) -> str:
    """What the server says of a request that it refuses."""
    try:
        text = error.read(10_000).decode("utf-8", "replace")
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError, OSError, HTTPException):
        return f"HTTP {error.code}"


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after is not None and retry_after.isdigit() else 0.0
