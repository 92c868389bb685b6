"""/docs: the routes on one page that loads nothing from anywhere.

FastAPI's own page takes Swagger UI from a CDN: it would tell a third party who reads it, and be empty where
there is no network. The same facts for programs are in /openapi.json.
"""

from __future__ import annotations

import html
import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter()

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}"
    "code,pre{font:14px/1.4 ui-monospace,monospace}pre{overflow:auto;padding:.8rem;background:#8881}"
    "details{margin:.6rem 0;border-bottom:1px solid #8884}summary{cursor:pointer;padding:.3rem 0}"
    "td{padding:.1rem .8rem .1rem 0;vertical-align:top}:root{color-scheme:light dark}"
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """What the server answers, from its OpenAPI document."""
    return HTMLResponse(page(request.app.openapi()), headers={"content-security-policy": _POLICY})


def page(document: dict[str, Any]) -> str:
    """The HTML of an OpenAPI document."""
    schemas = document.get("components", {}).get("schemas", {})
    routes = [
        _route(method.upper(), path, operation, schemas)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    return (
        f"<!doctype html><html lang=pt-BR><meta charset=utf-8><title>ptbr-slm: API</title>"
        f"<style>{_STYLE}</style><h1>ptbr-slm {html.escape(document['info']['version'])}</h1>"
        "<p>Rotas da API da OpenAI que este servidor atende. Para programas: "
        f"<a href=openapi.json>openapi.json</a>.</p>{''.join(routes)}</html>"
    )


def _route(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    schema = schemas.get(str(body.get("$ref", "")).rpartition("/")[2], body)
    rows = "".join(
        f"<tr><td><code>{html.escape(name)}</code><td><code>{html.escape(_kind(field))}</code>"
        f"<td>{html.escape(field.get('description', ''))}"
        for name, field in schema.get("properties", {}).items()
    )
    table = f"<table>{rows}</table>" if rows else ""
    text = html.escape(operation.get("summary", ""))
    return (
        f"<details><summary><code>{method} {html.escape(path)}</code></summary><p>{text}</p>{table}</details>"
    )


def _kind(field: dict[str, Any]) -> str:
    """A field's type in a few words: `string | null`, `array of integer`."""
    if "anyOf" in field:
        return " | ".join(dict.fromkeys(_kind(each) for each in field["anyOf"]))
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if "enum" in field or "const" in field:
        return json.dumps(field.get("enum", field.get("const")), ensure_ascii=False)
    if field.get("type") == "array":
        return f"array of {_kind(field.get('items', {}))}"
    return str(field.get("type", "any"))
