"""Scores of continuations: equal to the plain computation, however they are run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptbr_slm.runtime.model import Model

CLOSE = {"rel": 0, "abs": 1e-4}
"""Between engines."""
SAME = {"rel": 0, "abs": 2e-5}
"""Between ways to run on one engine: sums over some tens of tokens in fp32, whose logits span 20."""


@pytest.fixture(scope="module")
def exported(export_folder):
    with Model(export_folder, "cpu") as model:
        yield model


@pytest.fixture(scope="module")
def checkpoint(model_folder):
    with Model(model_folder, "cpu") as model:
        yield model


@pytest.fixture(params=["onnx", "torch"])
def model(request, exported, checkpoint):
    return exported if request.param == "onnx" else checkpoint


def plain_score(model, prompt, continuation):
    """(nats, is_greedy, tokens) from the logits of the whole text, which ids are written out here."""
    tokenizer, context = model.engine.tokenizer, model.engine.config.max_seq_len
    kept = prompt.rstrip()
    before = tokenizer.encode(kept)
    after = tokenizer.encode(prompt + continuation)[len(before) :]
    whole = (before + after)[-(context + 1) :]
    logits = model.logits(whole[:-1])[-len(after) :].astype(np.float64)
    logprobs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    nats = float(logprobs[np.arange(len(after)), after].sum())
    return nats, bool((logits.argmax(axis=1) == after).all()), len(after)


def assert_plain(model, prompt, continuation, score, tolerance=SAME):
    nats, greedy, tokens = plain_score(model, prompt, continuation)
    assert score.logprob == pytest.approx(nats, **tolerance)
    assert (score.is_greedy, score.tokens) == (greedy, tokens)
    assert score.bytes == len(continuation.encode())


PIECES = [
    "O rio",
    " corre",
    " devagar",
    " entre",
    "\n",
    " ",
    "  ",
    "é",
    "😀",
    " 👩‍👩‍👧",
    "<|eos|>",
    "<|bos|>",
    ",",
    "\u00a0",
    "Maria abriu a janela, olhou a rua molhada e decidiu que não iria à feira naquele dia.",
    "As crianças brincavam no quintal enquanto o avô contava histórias. ",
    "\x00",
    "a" * 30,
]
TEXT = st.lists(st.sampled_from(PIECES), max_size=4).map("".join)
REQUEST = st.tuples(TEXT, st.lists(TEXT.map(lambda text: " " + text), min_size=1, max_size=5))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(REQUEST, max_size=8))
def test_any_batch_scores_as_the_plain_computation(model, requests):
    found = model.score_batch(requests)
    assert [len(scores) for scores in found] == [len(texts) for _, texts in requests]
    for (prompt, texts), scores in zip(requests, found, strict=True):
        for text, score in zip(texts, scores, strict=True):
            assert_plain(model, prompt, text, score)
