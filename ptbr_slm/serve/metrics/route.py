"""The route that answers Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from ptbr_slm.serve.metrics.registry import Metrics

router = APIRouter(tags=["Estado"])


@router.get("/metrics", response_class=PlainTextResponse, summary="Contadores para o Prometheus")
def read_metrics(request: Request) -> Response:
    """Counters and gauges in Prometheus's text format."""
    metrics: Metrics = request.app.state.metrics
    page, content_type = metrics.exposition(request.headers.get("accept", ""))
    return Response(page, media_type=content_type, headers={"cache-control": "no-store"})
