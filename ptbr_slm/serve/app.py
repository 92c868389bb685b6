"""The application: routes, what guards them, and how faults are answered."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from ptbr_slm.errors import SlmError
from ptbr_slm.serve import docs_page, status
from ptbr_slm.serve.config import ServeConfig
from ptbr_slm.serve.errors import ApiError, as_api_error, json_error
from ptbr_slm.serve.metrics import Metrics
from ptbr_slm.serve.metrics import router as metrics_route
from ptbr_slm.serve.middleware.access import Access
from ptbr_slm.serve.middleware.lifecycle import Admission, Lifecycle
from ptbr_slm.serve.middleware.limits import Limits
from ptbr_slm.serve.middleware.paths import UnderPrefix
from ptbr_slm.serve.middleware.record import record_of
from ptbr_slm.serve.middleware.request_scope import RequestScope
from ptbr_slm.serve.openai import routers
from ptbr_slm.serve.page import PagePaths, ServedPage
from ptbr_slm.serve.served import ServedModels
from ptbr_slm.serve.validation import validation_error
from ptbr_slm.version import __version__


def create_app(models: ServedModels, config: ServeConfig, lifecycle: Lifecycle | None = None) -> FastAPI:
    """The ASGI application over models that are open. It opens and closes none.

    lifecycle: of a server that answers before its models are open; without it, all are.
    """
    lifecycle, metrics = lifecycle or Lifecycle(), Metrics(models)
    page = ServedPage(models, config, metrics) if config.page else None
    app = FastAPI(
        title="ptbr-slm",
        version=__version__,
        redirect_slashes=False,
        docs_url=None,  # FastAPI's own pages load their scripts from a CDN
        redoc_url=None,
        middleware=[
            *([Middleware(UnderPrefix, prefix=config.root_path)] if config.root_path else []),
            Middleware(RequestScope, over=metrics.answered),
            *([] if page is None else [Middleware(PagePaths, page=page, lifecycle=lifecycle)]),
            *_cors(config),
            Middleware(Admission, lifecycle=lifecycle, room=lambda: config.most_requests * len(list(models))),
            Middleware(Access, keys=config.api_keys),
            Middleware(Limits, config=config),
        ],
        exception_handlers={
            ApiError: _tell,
            SlmError: _tell,
            HTTPException: _tell_http,
            RequestValidationError: _tell_invalid,
        },
    )
    app.state.models, app.state.config = models, config
    app.state.lifecycle, app.state.metrics, app.state.page = lifecycle, metrics, page
    operation = [status.router, docs_page.router, *([metrics_route] if config.metrics else [])]
    for router in (*routers, *operation):
        app.include_router(router)
    return app


def _cors(config: ServeConfig) -> list[Middleware]:
    """Nothing unless origins were named: then a page of another origin cannot read an answer."""
    if not config.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=config.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    ]


async def _tell(request: Request, error: Exception) -> Response:
    fault = as_api_error(error)
    record_of(request).error = fault.code or ""
    return json_error(fault)


async def _tell_http(request: Request, error: Exception) -> Response:
    """What Starlette refuses by itself: an unknown route, a method that a route has not."""
    assert isinstance(error, HTTPException)
    asked = f"{request.method} {record_of(request).path}"
    if error.status_code == 404:
        fault = ApiError(404, f"A rota {asked} não existe; as que há estão em /docs.", code="unknown_route")
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"A rota não aceita este método ({asked}); aceita: {allowed}."
        fault = ApiError(405, message, code="method_not_allowed", headers=error.headers)
    else:
        message = "O pedido não pôde ser lido."
        fault = ApiError(error.status_code, message, code="invalid_request", headers=error.headers)
    return await _tell(request, fault)


async def _tell_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _tell(request, validation_error(error.errors()))
