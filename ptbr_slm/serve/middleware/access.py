"""Who may use the server: a key in `Authorization: Bearer` or `X-Api-Key`."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ptbr_slm.serve.errors import ApiError, json_error
from ptbr_slm.serve.middleware.paths import OPEN, route_path

_CHALLENGE = {"www-authenticate": 'Bearer realm="ptbr-slm"'}


class Access:
    """Refuses, with 401, whatever carries none of the keys; without keys, everybody may come in.

    All paths are guarded but `paths.OPEN`. OPTIONS passes: browsers ask it without credentials before they
    send any (the CORS preflight).

    A key is compared by its sha256, with every key and in constant time: the time of an answer tells neither
    how much of a guess was right nor which key it resembles.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._digests = [digest_of(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or not self._guarded(scope):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = _keys_in(headers)
        tenant = tenant_of(given, self._digests)
        if tenant is None:
            await json_error(_refusal(bool(given), "authorization" in headers))(scope, receive, send)
            return
        scope["state"]["record"].tenant = scope["state"]["tenant"] = tenant
        await self._app(scope, receive, send)

    def _guarded(self, scope: Scope) -> bool:
        return bool(self._digests) and scope["method"] != "OPTIONS" and route_path(scope) not in OPEN


def tenant_of(given: Sequence[str], digests: Sequence[bytes]) -> str | None:
    """12 hex digits of the sha256 of the key that is right; None where none is."""
    found = None
    for key in given:
        digest = digest_of(key)
        for known in digests:  # all of them, whether one is found or not
            if hmac.compare_digest(known, digest):
                found = digest.hex()[:12]
    return found


def digest_of(key: str) -> bytes:
    """sha256 of a key: what is compared in its place."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _keys_in(headers: Headers) -> list[str]:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    return [key for key in (bearer, headers.get("x-api-key", "")) if key]


def _refusal(wrong: bool, other_scheme: bool) -> ApiError:
    if wrong:
        message, code = "A chave de API não é válida neste servidor.", "invalid_api_key"
    elif other_scheme:
        message, code = "A autenticação aceita é Authorization: Bearer CHAVE.", "invalid_api_key"
    else:
        message = "Falta a chave de API: envie o cabeçalho Authorization: Bearer CHAVE."
        code = "missing_api_key"
    return ApiError(401, message, code=code, kind="authentication_error", headers=_CHALLENGE)
