"""/health, /ready, /ping, /version: how the server is. No key is needed."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from ptbr_slm.serve.errors import json_error
from ptbr_slm.serve.middleware.lifecycle import Phase, not_ready
from ptbr_slm.version import __version__

router = APIRouter(tags=["Estado"])


@router.get("/health", summary="Se os modelos estão carregados")
async def health(request: Request) -> Response:
    """200 once the models are loaded, until the process ends; 503 before (as llama.cpp's server)."""
    phase: Phase = request.app.state.lifecycle.phase
    if phase is Phase.LOADING:
        return json_error(not_ready(phase))
    return JSONResponse({"status": "ok" if phase is Phase.READY else phase.value})


@router.get("/ready", summary="Se novos pedidos são aceitos")
async def ready(request: Request) -> Response:
    """200 while new requests are accepted; 503 while the models load and while the server is ending."""
    phase: Phase = request.app.state.lifecycle.phase
    if phase is not Phase.READY:
        return json_error(not_ready(phase))
    return JSONResponse({"status": "ready"})


@router.get("/ping", response_class=PlainTextResponse, summary="Se o processo responde")
async def ping() -> Response:
    """200 while the process answers at all."""
    return PlainTextResponse("pong")


@router.get("/version", summary="A versão do ptbr-slm")
async def version() -> dict[str, str]:
    """The version of ptbr-slm."""
    return {"version": __version__}
