"""What finished texts add up to, under vLLM's names and labels (vllm/v1/metrics/loggers.py)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ptbr_slm.runtime.results import FinishReason, GenerationResult

LABELS = ("model_name", "engine")
ENGINE = "0"
"""vLLM numbers a model's engines; here each model has one."""

FIRST_TOKEN_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160,
    640, 2560,
)  # fmt: skip
BETWEEN_TOKENS_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80
)  # fmt: skip
REQUEST_S = (
    0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680
)  # fmt: skip
"""Upper ends of buckets, s: vLLM's (vllm/v1/metrics/loggers.py), so that quantiles of both compare."""
LENGTHS = tuple(digit * 10**power for power in range(6) for digit in (1, 2, 5))
"""Upper ends of buckets, tokens: vLLM's, which end at the model's context."""


VLLM_REASONS: dict[FinishReason | str, str] = {
    "eos": "stop",
    "stop": "stop",
    "length": "length",
    "context": "length",
    "timeout": "length",
    "cancelled": "abort",
    "error": "error",
}
"""Why a text ended -> vLLM's word for it. The wire has the same words, where it has any."""


class TextMetrics:
    """Counters and histograms that texts fill, and the part of each model in them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lock = Lock()
        self._models: dict[str, ModelCounters] = {}

        def histogram(name: str, what: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"vllm:{name}", what, LABELS, buckets=buckets, registry=registry)

        def counter(name: str, what: str, *more: str) -> Counter:
            return Counter(name, what, (*LABELS, *more), registry=registry)

        self.first_token = histogram("time_to_first_token_seconds", "Time to first token, s.", FIRST_TOKEN_S)
        self.times = {
            name: histogram(f"{name}_seconds", what, REQUEST_S)
            for name, what in [
                ("e2e_request_latency", "From request to last token, s."),
                ("request_queue_time", "From request to a slot, s."),
                ("request_prefill_time", "From the slot to the first token, s."),
                ("request_decode_time", "From the first token to the last, s."),
                ("request_inference_time", "From the slot to the last token, s."),
            ]
        }
        self.per_token = histogram(
            "request_time_per_output_token_seconds",
            "Mean time of a token after the first, s.",
            BETWEEN_TOKENS_S,
        )
        self.prompt_length = histogram("request_prompt_tokens", "Tokens of the prompt.", LENGTHS)
        self.length = histogram("request_generation_tokens", "Tokens generated.", LENGTHS)
        self.longest = histogram(
            "request_max_num_generation_tokens", "Tokens of the longest text of a request.", LENGTHS
        )
        self.prompt_tokens = counter("vllm:prompt_tokens", "Tokens of the prompts of finished texts.")
        self.tokens = counter("vllm:generation_tokens", "Tokens generated.")
        self.success = counter(
            "vllm:request_success", "Texts by vLLM's reason of their end.", "finished_reason"
        )
        self.reasons = Counter(
            "ptbr_slm_texts", "Texts by the reason of their end.", ("model_name", "reason"), registry=registry
        )
        registry.register(BetweenTokens(self._models))

    def of(self, model_name: str) -> ModelCounters:
        """The counters of one model; every reason is there from the start, at 0."""
        with self._lock:
            if model_name not in self._models:
                self._models[model_name] = ModelCounters(self, model_name)
            return self._models[model_name]


class ModelCounters:
    """The metrics of one model. Safe to share between threads."""

    def __init__(self, texts: TextMetrics, name: str) -> None:
        self.name = name
        self._first_token = texts.first_token.labels(name, ENGINE)
        self._times = {key: each.labels(name, ENGINE) for key, each in texts.times.items()}
        self._per_token = texts.per_token.labels(name, ENGINE)
        self._prompt_length = texts.prompt_length.labels(name, ENGINE)
        self._length = texts.length.labels(name, ENGINE)
        self._longest = texts.longest.labels(name, ENGINE)
        self._prompt_tokens = texts.prompt_tokens.labels(name, ENGINE)
        self._tokens = texts.tokens.labels(name, ENGINE)
        self._success = {word: texts.success.labels(name, ENGINE, word) for word in VLLM_REASONS.values()}
        self._reasons = {reason: texts.reasons.labels(name, reason) for reason in VLLM_REASONS}
        self._lock = Lock()
        self._gaps = [0] * (len(BETWEEN_TOKENS_S) + 1)
        self._gaps_s = 0.0

    def first_token(self, seconds: float) -> None:
        """A text has its first token, `seconds` after its request."""
        self._first_token.observe(seconds)

    def tokens(self, count: int, gaps: Sequence[float]) -> None:
        """`count` tokens more, with these times between them, s.

        prometheus-client's Histogram takes 2.3 us a value on the reference machine; all of a `FollowedCall`
        takes 0.4 us a token with this one.
        """
        if count:
            self._tokens.inc(count)
        with self._lock:
            for gap in gaps:
                self._gaps[bisect_left(BETWEEN_TOKENS_S, gap)] += 1
            self._gaps_s += sum(gaps)

    def finished(self, result: GenerationResult, seconds: float, *, first_of_prompt: bool) -> None:
        """A text ended, `seconds` after its request. first_of_prompt: `n` completions read one prompt."""
        self.ended(result.finish_reason)
        generated = len(result.tokens)
        self._times["e2e_request_latency"].observe(seconds)
        self._times["request_queue_time"].observe(result.queue_s)
        self._times["request_prefill_time"].observe(result.prefill_s)
        self._times["request_decode_time"].observe(result.decode_s)
        self._times["request_inference_time"].observe(result.prefill_s + result.decode_s)
        if generated > 1:
            self._per_token.observe(result.decode_s / (generated - 1))
        self._length.observe(generated)
        self._prompt_length.observe(result.prompt_tokens)
        if first_of_prompt:
            self._prompt_tokens.inc(result.prompt_tokens)

    def request_finished(self, longest: int) -> None:
        """All texts of a request ended; the longest has this many tokens."""
        self._longest.observe(longest)

    def ended(self, reason: FinishReason | str, texts: int = 1) -> None:
        """Texts are over: a `FinishReason`, or `error`."""
        self._reasons[reason].inc(texts)
        self._success[VLLM_REASONS[reason]].inc(texts)

    def between_tokens(self) -> tuple[list[tuple[str, float]], float]:
        """(upper end, how many at most that long) of each bucket, and the sum in s."""
        with self._lock:
            counts, total = list(self._gaps), self._gaps_s
        ends = [*(str(float(end)) for end in BETWEEN_TOKENS_S), "+Inf"]
        sums = (sum(counts[: right + 1]) for right in range(len(counts)))
        return list(zip(ends, map(float, sums), strict=True)), total


class BetweenTokens(Collector):
    """vLLM's inter_token_latency_seconds."""

    def __init__(self, models: Mapping[str, ModelCounters]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """Called at each scrape."""
        name = "vllm:inter_token_latency_seconds"
        family = HistogramMetricFamily(name, "Time between two tokens of a text, s.", labels=LABELS)
        for model_name, counters in list(self._models.items()):
            buckets, total = counters.between_tokens()
            family.add_metric([model_name, ENGINE], buckets, total)
        yield family
