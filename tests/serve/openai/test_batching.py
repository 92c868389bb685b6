"""Requests in one batch: each has the answer that it has alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from serving import serving
from toy_engine import ToyEngine

from ptbr_slm.runtime.model import Model

COUNT = 16


@pytest.fixture
def toy(tokenizer):
    """Logits are a hash of a slot's tokens: a mix-up of slots would show, and nothing else differs."""
    with Model.over(ToyEngine(tokenizer), Path(__file__)) as model, serving({"base": model}) as served:
        yield served


def ask(server, body) -> dict:
    answer = httpx2.post(f"{server.url}/v1/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def choices(server, bodies, threads):
    server.model.forget()
    with ThreadPoolExecutor(threads) as pool:
        return [answer["choices"] for answer in pool.map(lambda body: ask(server, body), bodies)]


def test_sixteen_at_once_have_the_texts_that_they_have_one_after_another(toy):
    bodies = [{"prompt": f"{number} rios", "temperature": 0, "max_tokens": 30} for number in range(COUNT)]
    assert choices(toy, bodies, COUNT) == choices(toy, bodies, 1)


def test_seeds_give_the_same_texts_in_a_batch_and_alone(toy):
    bodies = [
        {"prompt": "Maria", "temperature": 1, "seed": number, "max_tokens": 30} for number in range(COUNT)
    ]
    together = choices(toy, bodies, COUNT)
    assert together == choices(toy, bodies, 1)
    assert len({found[0]["text"] for found in together}) == COUNT


def test_plain_constrained_and_scored_requests_share_a_batch(toy):
    kinds = [
        {"temperature": 0},
        {"temperature": 1, "seed": 1, "response_format": {"type": "regex", "regex": "[a-e]{10}"}},
        {"temperature": 1, "seed": 2, "logprobs": 3, "echo": True},
        {"temperature": 1, "seed": 3, "frequency_penalty": 1, "logit_bias": {"40": 5}, "n": 2},
    ]
    bodies = [{"prompt": f"{number} rios", "max_tokens": 20} | kinds[number % 4] for number in range(COUNT)]
    assert choices(toy, bodies, COUNT) == choices(toy, bodies, 1)
