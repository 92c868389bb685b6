"""Which paths mean what, to what stands before the routes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
