"""/metrics: what Prometheus reads is true, bounded, and what Grafana boards for vLLM ask for."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from toy_engine import ToyEngine

from ptbr_slm.runtime.model import Model
from ptbr_slm.serve.app import create_app
from ptbr_slm.serve.config import ServeConfig
from ptbr_slm.serve.metrics.texts import BETWEEN_TOKENS_S, TextMetrics
from ptbr_slm.serve.process.server import Running, listen
from ptbr_slm.serve.served import ServedModel, ServedModels
from ptbr_slm.tokenizer import Tokenizer

httpx = pytest.importorskip("httpx", reason='instale com: pip install "ptbr-slm[app]"')
prometheus = pytest.importorskip("prometheus_client", reason='instale com: pip install "ptbr-slm[serve]"')
parser = pytest.importorskip("prometheus_client.parser")

PROMPT = "O rio corre"
Labels = tuple[tuple[str, str], ...]

VLLM_BOARD = {
    # Names in vLLM's examples/online_serving/prometheus_grafana/grafana.json, and with them in Ray's board
    # for vLLM (dashboards/serve_llm_dashboard_panels.py). "" is answered; else why it cannot be.
    "vllm:e2e_request_latency_seconds_bucket": "",
    "vllm:e2e_request_latency_seconds_sum": "",
    "vllm:e2e_request_latency_seconds_count": "",
    "vllm:prompt_tokens_total": "",
    "vllm:generation_tokens_total": "",
    "vllm:inter_token_latency_seconds_bucket": "",
    "vllm:inter_token_latency_seconds_sum": "",
    "vllm:inter_token_latency_seconds_count": "",
    "vllm:request_time_per_output_token_seconds_bucket": "",
    "vllm:time_to_first_token_seconds_bucket": "",
    "vllm:time_to_first_token_seconds_sum": "",
    "vllm:time_to_first_token_seconds_count": "",
    "vllm:request_prompt_tokens_bucket": "",
    "vllm:request_generation_tokens_bucket": "",
    "vllm:request_success_total": "",
    "vllm:request_queue_time_seconds_sum": "",
    "vllm:request_prefill_time_seconds_sum": "",
    "vllm:request_decode_time_seconds_sum": "",
    "vllm:request_max_num_generation_tokens_sum": "",
    "vllm:num_requests_running": "",
    "vllm:num_requests_waiting": "",
    "vllm:kv_cache_usage_perc": "",
    "vllm:prefix_cache_queries_total": "",
    "vllm:prefix_cache_hits_total": "",
    "vllm:time_per_output_token_seconds_bucket": "renamed by vLLM: inter_token_latency_seconds",
    "vllm:gpu_cache_usage_perc": "renamed by vLLM: kv_cache_usage_perc",
    "vllm:num_requests_swapped": "removed by vLLM with its V0 engine; no engine here swaps",
    "vllm:cpu_cache_usage_perc": "removed by vLLM with its V0 engine; there is one cache",
}


@dataclass
class Site:
    """A server in a thread, over toy engines."""

    http: httpx.Client
    engines: dict[str, ToyEngine]
    models: dict[str, Model]

    def read(self) -> dict[tuple[str, Labels], float]:
        """Every sample by name and labels."""
        page = self.http.get("/metrics")
        assert page.status_code == 200, page.text
        families = parser.text_string_to_metric_families(page.text)
        return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}

    def total(self, name: str, **labels: str) -> float:
        """Sum over the samples of a name that have these labels."""
        wanted = set(labels.items())
        return sum(value for (n, have), value in self.read().items() if n == name and wanted <= set(have))


@pytest.fixture(scope="module")
def tokenizer(texts) -> Tokenizer:
    return Tokenizer.train(texts * 4, 384)


@contextmanager
def answering(tokenizer: Tokenizer, *names: str, config: ServeConfig | None = None) -> Iterator[Site]:
    config = config or ServeConfig()
    engines = {name: ToyEngine(tokenizer) for name in names}
    models = {name: Model.over(engine, Path(name)) for name, engine in engines.items()}
    served = {name: ServedModel(name, model, f"sha-{name}") for name, model in models.items()}
    app = create_app(ServedModels(served), config)
    with listen("127.0.0.1", 0) as listening, Running(app, listening, config):
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
            yield Site(http, engines, models)
        for model in models.values():
            model.close()


@pytest.fixture
def site(tokenizer) -> Iterator[Site]:
    with answering(tokenizer, "toy") as found:
        yield found


def complete(site: Site, **body) -> httpx.Response:
    return site.http.post("/v1/completions", json={"prompt": PROMPT, "max_tokens": 8, "seed": 1, **body})


def test_every_metric_has_help_and_type_and_no_value_is_nan(site):
    complete(site)
    text = site.http.get("/metrics").text
    lines = text.splitlines()
    told = {
        kind: {line.split()[2] for line in lines if line.startswith(f"# {kind} ")}
        for kind in ("HELP", "TYPE")
    }
    for family in parser.text_string_to_metric_families(text):
        assert family.documentation and family.type != "unknown", family.name
        assert all(math.isfinite(sample.value) for sample in family.samples), family.name
    names = {line.split("{")[0].split()[0] for line in lines if line and not line.startswith("#")}
    endings = ("", "_bucket", "_sum", "_count")
    assert not [name for name in names if not {name.removesuffix(end) for end in endings} & told["TYPE"]]
    assert told["HELP"] == told["TYPE"]


def test_the_counters_are_the_sum_of_what_the_requests_were_told(site):
    answers = [
        complete(site).json(),
        complete(site, n=3, temperature=1.0).json(),
        complete(site, prompt=["O rio", "Maria foi ao mercado"], max_tokens=3).json(),
    ]
    with site.http.stream(
        "POST",
        "/v1/completions",
        json={"prompt": PROMPT, "max_tokens": 50, "stream": True, "stream_options": {"include_usage": True}},
    ) as stream:
        *_, last, done = (line for line in stream.iter_lines() if line.startswith("data: "))
    assert done == "data: [DONE]"
    answers.append(json.loads(last.removeprefix("data: ")))
    usages = [answer["usage"] for answer in answers]
    texts = 1 + 3 + 2 + 1
    assert site.total("vllm:prompt_tokens_total") == sum(usage["prompt_tokens"] for usage in usages)
    generated = sum(usage["completion_tokens"] for usage in usages)
    assert site.total("vllm:generation_tokens_total") == generated
    assert site.total("vllm:request_generation_tokens_sum") == generated
    assert site.total("vllm:request_success_total") == site.total("ptbr_slm_texts_total") == texts
    assert site.total("vllm:time_to_first_token_seconds_count") == texts
    assert site.total("vllm:inter_token_latency_seconds_count") == generated - texts
    assert site.total("vllm:request_max_num_generation_tokens_count") == len(answers)
    assert site.total("ptbr_slm_requests_total", route="/v1/completions", status="200") == len(answers)


def test_what_was_in_the_cache_is_counted_apart(site):
    usages = [complete(site, prompt=PROMPT * 20, seed=seed).json()["usage"] for seed in (1, 2)]
    hits = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
    assert hits > 0
    assert site.total("vllm:prefix_cache_hits_total") == site.total("ptbr_slm_reused_tokens_total") == hits
    assert site.total("vllm:prefix_cache_queries_total") == sum(usage["prompt_tokens"] for usage in usages)


def test_the_gauges_follow_the_engine_and_return_to_zero_when_it_is_idle(site):
    gate, texts = threading.Event(), 18

    def hold(what: str, slots: list[int]) -> None:
        gate.wait(60)

    site.engines["toy"].fail = hold
    with ThreadPoolExecutor(texts) as pool:
        answers = [pool.submit(complete, site, max_tokens=3) for _ in range(texts)]
        while held(site) < texts:
            pass
        assert site.total("vllm:num_requests_running") >= 1
        assert site.total("ptbr_slm_slots") == 16
        gate.set()
        assert all(answer.result().status_code == 200 for answer in answers)
    assert held(site) == 0
    for name in ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"):
        assert site.total(name) == 0
    assert site.total("ptbr_slm_decoded_tokens_total") == texts * 2  # the first comes with the prompt
    steps = site.total("ptbr_slm_engine_steps_total")
    assert site.total("vllm:iteration_tokens_total_count") == steps > 0


def held(site: Site) -> float:
    """Texts that run or wait."""
    return site.total("ptbr_slm_texts_running") + site.total("ptbr_slm_texts_waiting")


def test_the_times_between_tokens_fall_into_vllm_s_buckets():
    texts = TextMetrics(prometheus.CollectorRegistry())
    texts.of("m").tokens(4, [0.004, 0.01, 0.3, 100.0])
    buckets, total = texts.of("m").between_tokens()
    assert total == pytest.approx(100.314)
    assert [end for end, _ in buckets] == [*map(str, map(float, BETWEEN_TOKENS_S)), "+Inf"]
    assert dict(buckets) == {
        **{end: 2 for end, _ in buckets[:7]},
        **{end: 3 for end, _ in buckets[7:-1]},
        "+Inf": 4,
    }


def test_a_text_whose_reader_leaves_is_counted_as_cancelled(site):
    gone = threading.Event()

    def hold(what: str, slots: list[int]) -> None:
        if len(site.engines["toy"].runs) > 20:  # far from the end, whoever is quicker
            gone.wait(60)

    site.engines["toy"].fail = hold
    with site.http.stream(
        "POST", "/v1/completions", json={"prompt": PROMPT, "max_tokens": 400, "stream": True, "seed": 1}
    ) as stream:
        next(stream.iter_lines())
    while not site.total("ptbr_slm_texts_total"):  # the server learns of it a moment later
        pass
    gone.set()
    assert site.total("ptbr_slm_texts_total", reason="cancelled") == 1
    assert site.total("vllm:request_success_total", finished_reason="abort") == 1
    assert site.total("vllm:e2e_request_latency_seconds_count") == 0


def test_a_text_that_the_engine_fails_is_counted_as_an_error(site):
    def fail(what: str, slots: list[int]) -> None:
        raise RuntimeError("segredo")

    site.engines["toy"].fail = fail
    assert complete(site).status_code == 500
    assert site.total("ptbr_slm_texts_total", reason="error") == 1
    assert site.total("ptbr_slm_requests_total", route="/v1/completions", status="500") == 1


def test_nothing_that_a_client_sends_becomes_a_label(site):
    before = len(site.read())
    for right in range(5):
        assert complete(site, model=f"modelo-{right}").status_code == 404
        assert site.http.get(f"/segredo/{right}").status_code == 404
        assert site.http.get(f"/v1/models/modelo-{right}").status_code == 404
    found = site.read()
    assert not [labels for _, labels in found if "modelo-" in str(labels) or "segredo" in str(labels)]
    assert site.total("ptbr_slm_requests_total", route="other", status="404") == 5
    assert site.total("ptbr_slm_requests_total", route="/v1/models/{name:path}", status="404") == 5
    assert len(found) - before <= 2 * 4  # a counter and its time of creation, for three routes and /metrics


def test_a_board_for_vllm_finds_the_names_it_asks_for(site):
    complete(site)
    names = {name for name, _ in site.read()}
    assert names >= {name for name, why in VLLM_BOARD.items() if not why}
    assert not names & {name for name, why in VLLM_BOARD.items() if why}
    for (name, labels), _ in site.read().items():
        if name.startswith("vllm:"):  # label_values(model_name) fills the board's choice of models
            assert {"model_name", "engine"} <= dict(labels).keys(), name


def test_each_model_is_counted_under_its_name_and_is_there_before_it_is_used(tokenizer):
    with answering(tokenizer, "a", "b") as site:
        assert complete(site, model="b").status_code == 200
        for name, texts in (("a", 0), ("b", 1)):
            labels = {"model_name": name}
            assert site.total("vllm:request_success_total", **labels) == texts
            assert ("ptbr_slm_texts_total", (("model_name", name), ("reason", "eos"))) in site.read()


def test_two_applications_in_one_process_count_apart(tokenizer):
    with answering(tokenizer, "toy") as one, answering(tokenizer, "toy") as other:
        complete(one)
        assert one.total("ptbr_slm_texts_total") == 1
        assert other.total("ptbr_slm_texts_total") == 0


def test_metrics_can_be_left_out_and_need_the_key_where_there_is_one(tokenizer):
    with answering(tokenizer, "toy", config=ServeConfig(metrics=False)) as site:
        assert site.http.get("/metrics").status_code == 404
        assert complete(site).status_code == 200
    with answering(tokenizer, "toy", config=ServeConfig(api_keys=("chave-de-teste",))) as site:
        assert site.http.get("/metrics").status_code == 401
        site.http.headers["authorization"] = "Bearer chave-de-teste"
        assert site.http.get("/metrics").status_code == 200
