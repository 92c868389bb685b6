"""Which paths mean what, to what stands before the routes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

STATUS = frozenset({"/health", "/ready", "/ping", "/version"})
"""Answered while the models load and while the server drains: these tell which."""

POLLED = STATUS | {"/metrics"}
"""Asked every few seconds by what watches the server."""

PAGE = "/page"
"""The page, where it is asked for, and all that lies below."""

QUIET = POLLED | {PAGE}
"""Not logged while all is well: a visit to the page is some fifty requests."""

OPEN = STATUS | {"/docs", "/openapi.json"}
"""Answered without a key: they tell nothing that the documentation does not."""

JSON_BODIES = frozenset(
    {"/v1/completions", "/v1/chat/completions", "/v1/responses", "/tokenize", "/detokenize"}
)
"""Paths whose POST takes a JSON object. Of others a wrong method is told (405), whatever the body is."""


def route_path(scope: Mapping[str, Any]) -> str:
    """The path that the routes see: without the prefix under which a proxy shows the server."""
    path: str = scope["path"]
    root = str(scope.get("root_path", "")).rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :] or "/"
    return path


class UnderPrefix:
    """Tells what stands below the prefix under which a proxy shows the server, whether or not the proxy takes
    it off the path. (uvicorn's own setting puts it before every path, which serves only proxies that do.)
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._app({**scope, "root_path": self._prefix}, receive, send)
