"""One registry of everything that is counted."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, ProcessCollector
from prometheus_client.exposition import choose_encoder

from ptbr_slm.runtime.engine_loop import Call
from ptbr_slm.serve.metrics.calls import FollowedCall
from ptbr_slm.serve.metrics.engine import EngineCollector
from ptbr_slm.serve.metrics.texts import TextMetrics
from ptbr_slm.serve.middleware.record import CLIENT_LEFT, RequestRecord
from ptbr_slm.serve.served import ServedModel, ServedModels

OTHER_ROUTE = "other"
"""`route` of a request that no route fits: what a client typed is no label."""


class Metrics:
    """One registry, so that two applications in a process (tests, Ray) count apart."""

    def __init__(self, models: ServedModels) -> None:
        """models: may still be empty; each is counted from when it is there."""
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "ptbr_slm_requests", "HTTP requests answered.", ("route", "status"), registry=self._registry
        )
        self._served = models
        self._texts = TextMetrics(self._registry)
        self._registry.register(EngineCollector(models))
        ProcessCollector(registry=self._registry)

    def follow(self, served: ServedModel, call: Call, since: float) -> FollowedCall:
        """The same call; what comes through it is counted. since: `time.perf_counter()` of the request."""
        return FollowedCall(call, self._texts.of(served.name), since)

    def answered(self, record: RequestRecord) -> None:
        """An HTTP request is over."""
        self._requests.labels(record.route or OTHER_ROUTE, str(record.status or CLIENT_LEFT)).inc()

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """(page, content type) in the format that `accept` asks for."""
        for served in self._served:
            self._texts.of(served.name)  # a model that nobody has used is there, at 0
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type
