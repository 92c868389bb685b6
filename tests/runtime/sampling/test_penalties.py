"""Logit bias, presence and frequency penalties, and the order in which they act."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.runtime.sampling.penalties import Penalties
from ptbr_slm.runtime.sampling.sampler import Sampler, SamplerFactory

VOCAB = 40
IDS = st.integers(0, VOCAB - 1)


def applied(params: SamplingParams, prompt, generated, logits):
    penalties = Penalties(params, prompt, VOCAB)
    for token in generated:
        penalties.accept(token)
    ours = logits.copy()
    penalties.apply(ours)
    return ours


def vllm(params: SamplingParams, prompt, generated, logits):
    """vllm/v1/sample (bias, then apply_penalties: repetition, frequency, presence), over the vocabulary."""
    counts = np.bincount(np.array(generated, dtype=np.intp), minlength=VOCAB)
    seen = np.isin(np.arange(VOCAB), [*prompt, *generated])
    scores = logits.astype(np.float64)
    for token, value in params.logit_bias.items():
        scores[token] += value
    penalty = np.where(seen, params.repetition_penalty, 1.0)
    scores = np.where(scores > 0, scores / penalty, scores * penalty)
    scores -= params.frequency_penalty * counts
    return scores - params.presence_penalty * (counts > 0)


@settings(max_examples=200, deadline=None)
@given(
    prompt=st.lists(IDS, max_size=12),
    generated=st.lists(IDS, max_size=30),
    bias=st.dictionaries(IDS, st.floats(-100, 100), max_size=6),
    repetition=st.sampled_from([1.0, 0.7, 1.3]),
    frequency=st.floats(-2, 2),
    presence=st.floats(-2, 2),
    seed=st.integers(0, 1000),
)
def test_bias_and_penalties_are_those_of_vllm_in_its_order(
    prompt, generated, bias, repetition, frequency, presence, seed
):
    params = SamplingParams(
        repetition_penalty=repetition,
        frequency_penalty=frequency,
        presence_penalty=presence,
        logit_bias=bias,
    )
    logits = (np.random.default_rng(seed).normal(size=VOCAB) * 4).astype(np.float32)
    expected = vllm(params, prompt, generated, logits)
    np.testing.assert_allclose(applied(params, prompt, generated, logits), expected, rtol=1e-5, atol=1e-4)


def test_bias_is_that_of_transformers():
    torch = pytest.importorskip("torch", reason="compares with transformers: pip install 'ptbr-slm[dev]'")
    peer = pytest.importorskip("transformers.generation.logits_process", reason="as above")
    bias = {3: 1.5, 7: -100.0}
    logits = np.random.default_rng(0).normal(size=VOCAB).astype(np.float32)
    processor = peer.SequenceBiasLogitsProcessor({(token,): value for token, value in bias.items()})
    expected = processor(torch.tensor([[1, 2]]), torch.from_numpy(logits.copy())[None])[0].numpy()
    ours = applied(SamplingParams(logit_bias=bias), [], [], logits)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_the_prompt_does_not_count_for_presence_and_frequency():
    """OpenAI: "tokens sampled prior to the current position"."""
    params = SamplingParams(temperature=0, presence_penalty=2.0, frequency_penalty=2.0)
    sampler = Sampler(params, seed=0, prompt=[0, 0, 0], vocab_size=3)
    scores = np.array([6.0, 3.5, 0.0], dtype=np.float32)
    assert [sampler.choose(scores.copy()) for _ in range(4)] == [0, 1, 0, 0]


def test_a_bias_of_minus_100_forbids_and_of_100_forces():
    scores = np.array([9.0, 8.0, 1.0], dtype=np.float32)
    forbids = Sampler(SamplingParams(logit_bias={0: -100.0}), seed=0, prompt=[], vocab_size=3)
    assert 0 not in {forbids.choose(scores.copy()) for _ in range(200)}
    forces = Sampler(SamplingParams(logit_bias={2: 100.0}), seed=0, prompt=[], vocab_size=3)
    assert {forces.choose(scores.copy()) for _ in range(200)} == {2}


def test_a_bias_beyond_the_vocabulary_is_refused_before_a_text_begins(tokenizer):
    params = SamplingParams(logit_bias={tokenizer.vocab_size: 1.0})
    with pytest.raises(SlmError, match=f"vai de 0 a {tokenizer.vocab_size - 1}") as error:
        SamplerFactory(params, tokenizer, [1])
    assert error.value.code == "E_SAMPLING"


def test_the_default_way_counts_nothing():
    assert not Penalties(SamplingParams(), [1, 2], 10).active
