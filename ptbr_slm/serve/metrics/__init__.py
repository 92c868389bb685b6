"""What Prometheus reads at /metrics: `ptbr_slm_*`, and vLLM's names, so that Grafana boards for it work.

A route hands its call to `Metrics.follow` and reads the chunks from what that gives back; the numbers of the
engine itself (`engine.py`) are read when somebody asks. No label holds what a client sent: a route is
its template, a model one of those that are served.
"""

from ptbr_slm.serve.metrics.calls import FollowedCall
from ptbr_slm.serve.metrics.registry import Metrics
from ptbr_slm.serve.metrics.route import router

__all__ = ["FollowedCall", "Metrics", "router"]
