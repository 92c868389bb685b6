"""The page of `ptbr-slm app` under /page, on the same engine as the API: its texts run in the same batch.

It stands before the guards of the API, for a browser sends no `Authorization`: where the server has keys, the
page asks for one as its password. What Gradio answers lies below /page alone.
"""

from __future__ import annotations

import asyncio
import time
from threading import Lock
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import RedirectResponse
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from ptbr_slm.app.code_snippets import Api
from ptbr_slm.app.launch import Page, launch_options, require_gradio
from ptbr_slm.app.writer import Writer
from ptbr_slm.serve.config import ServeConfig
from ptbr_slm.serve.errors import ApiError, json_error
from ptbr_slm.serve.metrics import FollowedCall, Metrics
from ptbr_slm.serve.middleware.access import digest_of, tenant_of
from ptbr_slm.serve.middleware.lifecycle import Lifecycle, Phase, not_ready
from ptbr_slm.serve.middleware.paths import PAGE, route_path
from ptbr_slm.serve.served import ServedModel, ServedModels

LOGIN = "Escreva qualquer nome e, como senha, uma chave de API deste servidor."

ICON = '<link rel="icon" href="favicon.ico">'
"""Gradio's, below /page: without it browsers ask the server itself for one."""

TENANT = "page"
"""Of all visitors, so that the page tells nobody what was asked through the API."""

_MOUNTED = (
    "footer_links", "run_history", "app_kwargs", "allowed_paths", "show_error", "max_file_size", "ssr_mode",
    "enable_monitoring", "pwa", "mcp_server", "theme", "css", "i18n",
)  # fmt: skip
"""Settings of `Blocks.launch` that a mounted page takes too."""


class ServedPage:
    """The page of all models, as an ASGI application for paths from /page on."""

    def __init__(self, models: ServedModels, config: ServeConfig, metrics: Metrics) -> None:
        """Raises E_DEPENDENCY without Gradio."""
        require_gradio()
        self._models, self._config, self._metrics = models, config, metrics
        self._digests = [digest_of(key) for key in config.api_keys]
        self._opening = Lock()
        self._app: Any = None
        self._started = False

    def open(self) -> None:
        """Build the page of the models, which are open by now. Importing Gradio takes seconds."""
        with self._opening:
            self._app = self._app or self._build()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; the first one opens the page, where nobody has."""
        if self._app is None:
            await asyncio.to_thread(self.open)
        if not self._started:  # as gradio.mount_gradio_app does once, in the loop that answers
            self._started = True
            self._app.get_blocks().run_startup_events()
        fault = self._refusal(scope)
        if fault is not None:
            await json_error(fault)(scope, receive, send)
            return
        root = self._config.root_path
        path = root + route_path(scope)  # also where a proxy has taken the prefix off
        if path == root + PAGE:
            await RedirectResponse(path + "/")(scope, receive, send)
            return
        below = {**scope, "path": path, "raw_path": path.encode(), "root_path": root + PAGE}
        await self._app(below, receive, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        """Gradio reads a body whole: it must say how long it is, and be short."""
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return None
        length, limit = Headers(scope=scope).get("content-length", ""), self._config.max_body_bytes
        if not (length.isascii() and length.isdigit()):
            return ApiError(411, "Falta o cabeçalho Content-Length.", code="length_required")
        if int(length[:20]) > limit:
            return ApiError(413, f"O corpo do pedido passa de {limit} bytes.", code="body_too_large")
        return None

    def _build(self) -> Any:
        """The Gradio application."""
        import gradio as gr

        writers = {served.name: self._writer(served) for served in self._models}
        page = Page(writers, Api("../v1", keys=bool(self._digests)))
        demo = page.demo
        options = launch_options(page)
        demo.state_session_capacity = options["state_session_capacity"]
        parent = FastAPI()
        parent.add_middleware(CORSMiddleware)  # Gradio leaves CORS to it; none of its requests pass there
        gr.mount_gradio_app(
            parent,
            demo,
            path=PAGE,
            auth=self._may_enter if self._digests else None,
            auth_message=LOGIN if self._digests else None,
            head=options["head"] + ICON,
            **{name: options[name] for name in _MOUNTED},
        )
        return next(route.app for route in parent.routes if isinstance(route, Mount))

    def _writer(self, served: ServedModel) -> Writer:
        """Its texts are counted as those of the API are."""

        def submit(prompt: Any, **options: Any) -> FollowedCall:
            since = time.perf_counter()
            limits: dict[str, Any] = {"tenant": TENANT, "timeout_s": self._config.timeout_s}
            return self._metrics.follow(served, served.model.submit(prompt, **limits, **options), since)

        return Writer(served.model, submit)

    def _may_enter(self, _user: str, password: str) -> bool:
        return tenant_of([password.strip()], self._digests) is not None


class PagePaths:
    """ASGI middleware: /page and what lies below goes to the page, the rest on."""

    def __init__(self, app: ASGIApp, page: ServedPage, lifecycle: Lifecycle) -> None:
        self._app, self._page, self._lifecycle = app, page, lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        path = route_path(scope) if scope["type"] == "http" else ""
        if path != PAGE and not path.startswith(PAGE + "/"):
            await self._app(scope, receive, send)
            return
        scope["route"] = SimpleNamespace(path=PAGE)  # its one name in logs and metrics
        if self._lifecycle.phase is Phase.READY:
            await self._page(scope, receive, send)
        else:
            await json_error(not_ready(self._lifecycle.phase))(scope, receive, send)
