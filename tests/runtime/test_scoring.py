"""Scores of continuations: equal to the plain computation, however they are run."""

from __future__ import annotations

import numpy as np
import pytest

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.scoring import encode_pair


@pytest.fixture(params=["onnx", "torch"])
def model(request, export_folder, model_folder):
    with Model(export_folder if request.param == "onnx" else model_folder, "cpu") as model:
        yield model


def plain_score(model, prompt, continuation):
    """(nats, is_greedy) from the logits of the whole text."""
    pair = encode_pair(model.engine.tokenizer, model.engine.config, prompt, continuation)
    logits = model.logits(pair.ids)[pair.start - 1 :].astype(np.float64)
    logprobs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    targets = np.array(pair.targets)
    return (
        float(logprobs[np.arange(len(targets)), targets].sum()),
        bool((logits.argmax(axis=1) == targets).all()),
    )


def test_a_score_is_the_sum_of_log_probabilities_of_the_plain_run(model, texts):
    for text in texts:
        for at in (0, 1, 7, 20, len(text) - 1):
            (score,) = model.score(text[:at], [text[at:]])
            nats, greedy = plain_score(model, text[:at], text[at:])
            assert score.logprob == pytest.approx(nats, abs=1e-4)
            assert score.is_greedy == greedy
            assert score.bytes == len(text[at:].encode())
            assert score.prompt_tokens_cut == 0


def test_bad_requests_are_refused(model):
    for prompt, continuations in (("a", [""]), ("a", "b"), (3, ["b"]), ("a", [b"b"])):
        with pytest.raises(SlmError) as caught:
            model.score(prompt, continuations)
        assert caught.value.code == "E_PROMPT"
