"""The application: routes, what guards them, and how faults are answered."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from ptbr_slm.serve.config import ServeConfig
from ptbr_slm.serve.errors import as_api_error
from ptbr_slm.serve.lifecycle import Lifecycle
from ptbr_slm.serve.openai import routers
from ptbr_slm.serve.served import ServedModels
from ptbr_slm.version import __version__


def create_app(models: ServedModels, config: ServeConfig, lifecycle: Lifecycle | None = None) -> FastAPI:
    """The ASGI application over models that are open. It opens and closes none.

    lifecycle: of a server that answers before its models are open; without it, all are.
    """
    app = FastAPI(title="ptbr-slm", version=__version__)
    app.state.models, app.state.config = models, config
    app.state.lifecycle = lifecycle or Lifecycle()
    for router in routers:
        app.include_router(router)
    app.add_exception_handler(Exception, _answer)
    return app


async def _answer(request: Request, error: Exception) -> JSONResponse:
    fault = as_api_error(error)
    return JSONResponse(fault.body(), fault.status, fault.headers)
