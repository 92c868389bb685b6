"""The page's scripts that compute: the bars against the sampler itself, the bits against the tokenizer's."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

from ptbr_slm.app.reader import Reader, split_logits
from ptbr_slm.runtime.sampling.distribution import distribution
from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.runtime.sampling.penalties import penalise

Run = Callable[[str, list[Any]], Any]


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest) -> Run:
    """Call `ptbr.NAME(...arguments)` of the page's scripts for each list of them: by node, or in Chromium."""
    names = ("distribution.js", "tokens.js", "token_list.js", "probabilities.js")
    source = "\n".join(
        (files("ptbr_slm.app") / "static" / name).read_text(encoding="utf-8") for name in names
    )
    node = shutil.which("node")
    if node is not None:
        return partial(_by_node, node, source)
    tab = request.getfixturevalue("browser").new_page()
    tab.evaluate(source)
    request.addfinalizer(tab.close)
    return lambda name, calls: tab.evaluate(
        "([name, calls]) => calls.map((a) => ptbr[name](...a))", [name, calls]
    )


def _by_node(node: str, source: str, name: str, calls: list[Any]) -> Any:
    script = f"{source}\nconst calls = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
    script += f"process.stdout.write(JSON.stringify(calls.map((a) => ptbr.{name}(...a))));"
    done = subprocess.run(
        [node, "-e", script], input=json.dumps(calls), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def settings_of(params: SamplingParams) -> dict[str, float]:
    return {
        "temperature": params.temperature,
        "topP": params.top_p,
        "topK": params.top_k,
        "minP": params.min_p,
        "repetition": params.repetition_penalty,
    }


def shares_of_the_sampler(logits: np.ndarray, ids: list[int], params: SamplingParams) -> np.ndarray:
    """(V,) probability of each token in the sampler's draw, as sampler.py prepares it."""
    scores, shares = logits.copy(), np.zeros(len(logits))
    penalise(scores, np.unique(ids), params.repetition_penalty)
    if params.temperature == 0:
        shares[scores.argmax()] = 1.0
        return shares
    kept, weights = distribution(scores, params)
    shares[slice(None) if kept is None else kept] = weights / weights.sum(dtype=np.float64)
    return shares


def random_case(random: np.random.Generator, vocab: int) -> tuple[np.ndarray, list[int], SamplingParams]:
    logits = (random.normal(size=vocab) * random.choice([0.5, 2.0, 4.0])).astype(np.float32)
    if random.random() < 0.2:
        logits = np.round(logits)  # ties
    if random.random() < 0.2:
        logits[random.integers(vocab, size=vocab // 3)] = -np.inf
    params = SamplingParams(
        temperature=float(random.choice([0.0, 0.05, 0.5, 0.8, 1.0, 1.3, 2.0])),
        top_p=float(random.choice([0.05, 0.5, 0.9, 0.95, 1.0])),
        top_k=int(random.choice([0, 0, 1, 7, 40, 200])),
        min_p=float(random.choice([0.0, 0.0, 0.02, 0.3, 1.0])),
        repetition_penalty=float(random.choice([1.0, 1.0, 1.2, 2.0])),
    )
    return logits, random.integers(vocab, size=30).tolist(), params


def cases(seed: int, vocab: int, count: int) -> list[tuple[np.ndarray, list[int], SamplingParams]]:
    random = np.random.default_rng(seed)
    return [random_case(random, vocab) for _ in range(count)]


def told(logits: np.ndarray, ids: list[int], params: SamplingParams) -> list[Any]:
    """Arguments of the script's `distribution`."""
    one_by_one, levels = split_logits(logits, ids)
    seen = set(ids)
    tokens = [{"id": i, "logit": float(logits[i]), "seen": i in seen} for i in one_by_one]
    return [tokens, levels, settings_of(params)]


def test_every_bar_is_the_sampler_s_probability_where_all_tokens_are_told(run):
    given = cases(seed=1, vocab=250, count=300)
    for (logits, ids, params), found in zip(
        given, run("distribution", [told(*case) for case in given]), strict=True
    ):
        wanted = shares_of_the_sampler(logits, ids, params)
        assert found["rest"] == {"share": 0, "count": 0, "kept": 0}
        got = {row["token"]["id"]: row["share"] for row in found["tokens"]}
        assert list(got) == sorted(got, key=lambda i: (-wanted[i], -got[i])) or params.temperature == 0
        for token, share in got.items():
            assert share == pytest.approx(wanted[token], abs=1e-6), (params, token)
            assert (share > 0) == (wanted[token] > 0)
        assert all((row["share"] == 0) == bool(row["out"]) for row in found["tokens"])


def test_bars_of_a_large_vocabulary_are_the_sampler_s_within_two_in_ten_thousand(run):
    given = cases(seed=2, vocab=6000, count=120)
    for (logits, ids, params), found in zip(
        given, run("distribution", [told(*case) for case in given]), strict=True
    ):
        wanted = shares_of_the_sampler(logits, ids, params)
        for row in found["tokens"]:
            assert row["share"] == pytest.approx(wanted[row["token"]["id"]], abs=2e-4), params
        kept = sum(row["share"] > 0 for row in found["tokens"]) + found["rest"]["kept"]
        assert kept == pytest.approx(int((wanted > 0).sum()), rel=0.01, abs=1), params
        total = sum(row["share"] for row in found["tokens"]) + found["rest"]["share"]
        assert total == pytest.approx(1, abs=1e-9)


def test_a_bar_names_the_first_setting_that_left_its_token_out(run):
    tokens = [{"id": i, "logit": -float(i), "seen": False} for i in range(6)]
    settings = {"temperature": 1, "topP": 0.9, "topK": 4, "minP": 0.2, "repetition": 1}
    [found] = run("distribution", [[tokens, [], settings]])
    assert [row["out"] for row in found["tokens"]] == ["", "", "minP", "topP", "topK", "topK"]
    [greedy] = run("distribution", [[tokens, [[-9, 100]], settings | {"temperature": 0}]])
    assert [row["out"] for row in greedy["tokens"]] == ["", *["temperature"] * 5]
    assert greedy["rest"] == {"share": 0, "count": 100, "kept": 0}


def test_bits_per_byte_on_the_page_are_the_measure_of_the_rest_of_the_project(run, page):
    import asyncio

    text = "Não há ação sem emoção 🙂."
    pieces = asyncio.run(Reader(page.writer).read(text))["pieces"]
    [found] = run("measure", [[pieces]])
    tokenizer = page.model.engine.tokenizer
    ids = np.array(tokenizer.encode(text))
    bits = -page.model.logprobs(ids.tolist()).sum() / np.log(2)
    assert found["bytes"] == int(tokenizer.target_bytes(ids).sum()) == len(text.encode())
    assert found["bits"] == pytest.approx(bits, abs=0.05)
    assert (found["tokens"], found["characters"]) == (len(ids) - 1, len(text))
