"""The engines' own numbers, read at each scrape: what runs and waits, memory, and what was computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.batch import BatchFigures
from ptbr_slm.serve.metrics.texts import ENGINE, LABELS
from ptbr_slm.serve.served import ServedModel, ServedModels
from ptbr_slm.version import __version__

Figure = tuple[str, str, Callable[[BatchFigures], float]]
"""(metric, what it is, its value from `BatchFigures`)."""

GAUGES: tuple[Figure, ...] = (
    ("ptbr_slm_texts_running", "Texts that have a slot.", lambda f: f.running),
    ("ptbr_slm_texts_waiting", "Texts that wait for a slot.", lambda f: f.waiting),
    ("ptbr_slm_waiting_tokens", "Tokens of the prompts that wait.", lambda f: f.waiting_tokens),
    ("ptbr_slm_slots", "Texts that can run together.", lambda f: f.slots),
    ("ptbr_slm_cached_slots", "Slots kept for the prefix of a next text.", lambda f: f.cached_slots),
    ("ptbr_slm_kv_cache_bytes", "Bytes of keys and values.", lambda f: f.kv_bytes),
    ("vllm:num_requests_running", "Texts that have a slot.", lambda f: f.running),
    ("vllm:num_requests_waiting", "Texts that wait for a slot.", lambda f: f.waiting),
    ("vllm:kv_cache_usage_perc", "Share of the cache in use, 0 to 1.", lambda f: f.kv_tokens / f.kv_capacity),
)
COUNTERS: tuple[Figure, ...] = (
    ("ptbr_slm_engine_steps", "Steps of the engine.", lambda f: f.steps),
    (
        "ptbr_slm_decoded_tokens",
        "Tokens of decode steps: all but a text's first, also of texts cancelled later.",
        lambda f: f.decoded_tokens,
    ),
    ("ptbr_slm_prefilled_tokens", "Tokens of prompts that were computed.", lambda f: f.prompt_tokens),
    ("ptbr_slm_reused_tokens", "Tokens of prompts found in the cache.", lambda f: f.reused_tokens),
    ("ptbr_slm_drafted_tokens", "Tokens guessed ahead.", lambda f: f.drafted),
    ("ptbr_slm_accepted_tokens", "Guesses that were right.", lambda f: f.accepted),
    ("vllm:prefix_cache_queries", "Tokens of prompts.", lambda f: f.prompt_tokens + f.reused_tokens),
    ("vllm:prefix_cache_hits", "Tokens of prompts found in the cache.", lambda f: f.reused_tokens),
    ("vllm:num_preemptions", "Always 0: a text keeps its slot to its end.", lambda f: 0),
)


class EngineCollector(Collector):
    """Reads `Model.load_figures` of every model; a closed one has no numbers."""

    def __init__(self, models: ServedModels) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """Called at each scrape."""
        yield InfoMetricFamily("ptbr_slm_build", "The package.", {"version": __version__})
        info = InfoMetricFamily("ptbr_slm_model", "What is served.", labels=["model_name"])
        open_models = list(self._open())
        for served, _ in open_models:
            info.add_metric([served.name], _facts(served))
        yield info
        figures = {served.name: of_model for served, of_model in open_models}
        for metric, what, value in GAUGES:
            gauge = GaugeMetricFamily(metric, what, labels=LABELS)
            for name, of_model in figures.items():
                gauge.add_metric([name, ENGINE], value(of_model))
            yield gauge
        for metric, what, value in COUNTERS:
            counter = CounterMetricFamily(metric, what, labels=LABELS)
            for name, of_model in figures.items():
                counter.add_metric([name, ENGINE], value(of_model))
            yield counter
        steps = HistogramMetricFamily(
            "vllm:iteration_tokens_total",
            "Tokens of a step of the engine; sum and count are exact, it has one bucket.",
            labels=LABELS,
        )
        for name, of_model in figures.items():
            tokens = of_model.decoded_tokens + of_model.prompt_tokens
            steps.add_metric([name, ENGINE], [("+Inf", of_model.steps)], tokens)
        yield steps

    def _open(self) -> Iterator[tuple[ServedModel, BatchFigures]]:
        for served in self._models:
            with suppress(SlmError):  # E_CLOSED: the server is going down
                yield served, served.model.load_figures()


def _facts(served: ServedModel) -> dict[str, str]:
    described = served.model.describe()
    return {
        "sha256": served.fingerprint,
        "format": str(described["engine"]),
        "precision": str(described["precision"]),
        "device": str(described["device"]),
    }
