"""Log probabilities against a float64 log-softmax, and the selection that finds the top without a sort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.sampling.distribution import draw, top_ids
from ptbr_slm.runtime.sampling.params import GREEDY, SamplingParams
from ptbr_slm.runtime.sampling.sampler import Sampler, SamplerFactory, prompt_logprobs, token_logprob
from ptbr_slm.tokenizer import Tokenizer


def exact(logits):
    """float64 log-softmax by its definition."""
    scores = logits.astype(np.float64)
    scores -= scores.max()
    return scores - np.log(np.exp(scores).sum())


@st.composite
def logits_arrays(draw):
    size = draw(st.one_of(st.integers(1, 30), st.integers(31, 6000)))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = random.normal(size=size) * draw(st.sampled_from([0.1, 3.0, 60.0]))
    return (np.round(scores) if draw(st.booleans()) else scores).astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(logits=logits_arrays(), top=st.integers(0, 20), pick=st.integers(0, 10**6))
def test_log_probabilities_are_those_of_a_float64_softmax(logits, top, pick):
    token = pick % len(logits)
    before = logits.copy()
    found = token_logprob(logits, token, top)
    np.testing.assert_array_equal(logits, before)
    wanted = exact(logits)
    assert found.token == token
    assert found.logprob == pytest.approx(wanted[token], abs=2e-5)
    values = [value for _, value in found.top]
    assert values == pytest.approx(np.sort(wanted)[::-1][:top].tolist(), abs=2e-5)
    assert values == sorted(values, reverse=True)
    assert [logits[index] for index, _ in found.top] == np.sort(logits)[::-1][:top].tolist()
    assert max([found.logprob, *values]) <= 0.0


@settings(max_examples=150, deadline=None)
@given(logits=logits_arrays(), data=st.data())
def test_the_top_ids_are_those_of_a_sort_ties_included(logits, data):
    if len(logits) < 2:
        return
    k = data.draw(st.integers(1, len(logits) - 1))
    kth = np.sort(logits)[::-1][k - 1]
    np.testing.assert_array_equal(top_ids(logits, k), np.flatnonzero(logits >= kth))


@settings(max_examples=150, deadline=None)
@given(size=st.integers(1, 9000), uniform=st.floats(0, 1, exclude_max=True), seed=st.integers(0, 2**32))
def test_a_draw_is_where_the_running_sum_passes_and_never_on_a_weight_of_zero(size, uniform, seed):
    random = np.random.default_rng(seed)
    weights = (random.random(size) * (random.random(size) > 0.7)).astype(np.float32)
    weights[random.integers(size)] = 1.0
    index = draw(weights, uniform)
    assert weights[index] > 0
    sums = np.cumsum(weights, dtype=np.float64)
    slack = 1e-9 * sums[-1]
    assert sums[index] - weights[index] - slack <= uniform * sums[-1] <= sums[index] + slack


def test_log_probabilities_are_of_the_model_before_temperature_penalties_and_bias():
    params = SamplingParams(
        temperature=0, logprobs=2, logit_bias={0: -100.0}, repetition_penalty=5.0, presence_penalty=2.0
    )
    sampler = Sampler(params, seed=0, prompt=[1], vocab_size=3)
    logits = np.array([3.0, 1.0, 0.5], dtype=np.float32)
    assert sampler.choose(logits.copy()) == 2
    assert sampler.logprob is not None
    wanted = exact(logits)
    assert sampler.logprob.logprob == pytest.approx(wanted[2], abs=1e-6)
    assert sampler.logprob.top == (
        (0, pytest.approx(wanted[0], abs=1e-6)),
        (1, pytest.approx(wanted[1], abs=1e-6)),
    )


def test_a_token_s_rank_counts_all_that_are_more_probable_however_few_are_named():
    logits = np.random.default_rng(1).normal(size=400).astype(np.float32)
    order = np.argsort(-logits).tolist()
    for top in (0, 3, 20):
        assert [token_logprob(logits, order[place], top).rank for place in (0, 7, 399)] == [1, 8, 400]
    tied = np.zeros(5, dtype=np.float32)
    assert {token_logprob(tied, token, 1).rank for token in range(5)} == {1}


def test_without_logprobs_there_are_none():
    sampler = Sampler(SamplingParams(), seed=0, prompt=[], vocab_size=4)
    sampler.choose(np.zeros(4, dtype=np.float32))
    assert sampler.logprob is None


def test_prompt_log_probabilities_do_not_depend_on_the_chunks():
    random = np.random.default_rng(0)
    logits = random.normal(size=(9, 50)).astype(np.float32)
    following = random.integers(0, 50, 9).tolist()
    whole = prompt_logprobs(logits, following, 2)
    parts = prompt_logprobs(logits[:4], following[:4], 2) + prompt_logprobs(logits[4:], following[4:], 2)
    assert whole == parts
    assert [found.logprob for found in whole] == pytest.approx(
        [exact(row)[token] for row, token in zip(logits, following, strict=True)], abs=1e-6
    )


def test_a_probability_of_zero_is_still_a_number_that_json_can_hold():
    logits = np.array([0.0, -np.inf], dtype=np.float32)
    assert token_logprob(logits, 1, 2).logprob == -9999.0


@settings(max_examples=60, deadline=None)
@given(
    options=st.fixed_dictionaries(
        {
            "temperature": st.sampled_from([0.0, 0.7, 50.0]),
            "top_k": st.sampled_from([0, 1, 5]),
            "top_p": st.sampled_from([0.5, 1.0]),
            "repetition_penalty": st.sampled_from([1.0, 1.5]),
            "frequency_penalty": st.sampled_from([0.0, -2.0]),
            "logit_bias": st.sampled_from([{}, {3: 100.0}]),
        }
    ),
    least=st.integers(1, 6),
    seed=st.integers(0, 2**32),
)
def test_no_token_that_ends_the_text_is_chosen_before_min_tokens(options, least, seed):
    """Ends that are far more probable than anything else: chosen as soon as they may be."""
    params = SamplingParams(min_tokens=least, max_new_tokens=10, **options)
    sampler = Sampler(params, seed, prompt=[3, 7], vocab_size=40, ends=np.array([3, 7]))
    random = np.random.default_rng(seed)
    for number in range(least + 1):
        logits = random.normal(size=40).astype(np.float32)
        logits[[3, 7]] = 10_000.0
        assert (sampler.draw() is None) == (number < least or sampler._penalties is not None)
        assert (sampler.choose(logits) in (3, 7)) == (number >= least)


def test_a_text_that_nothing_can_end_leaves_the_draw_to_the_engine_whatever_min_tokens(texts):
    tokenizer = Tokenizer.train(texts, 300)
    params = SamplingParams(min_tokens=5, ignore_eos=True, temperature=0.0)
    assert SamplerFactory(params, tokenizer, end_ids=[2]).sampler(0, [1]).draw() == GREEDY


def test_tokens_that_the_vocabulary_does_not_have_or_that_leave_no_other_are_refused(texts):
    tokenizer = Tokenizer.train(texts, 300)
    size = tokenizer.vocab_size
    with pytest.raises(SlmError, match=f"stop_token_ids cita o token {size}") as error:
        SamplerFactory(SamplingParams(stop_token_ids=(1, size)), tokenizer, [])
    assert (error.value.code, error.value.where) == ("E_SAMPLING", "stop_token_ids")
    SamplerFactory(SamplingParams(), tokenizer, range(size))
    with pytest.raises(SlmError, match="nenhum token") as error:
        SamplerFactory(SamplingParams(min_tokens=1), tokenizer, range(size))
    assert error.value.where == "min_tokens"


def test_log_probabilities_do_not_see_that_a_token_may_not_be_chosen():
    params = SamplingParams(temperature=0, logprobs=1, min_tokens=1)
    sampler = Sampler(params, seed=0, prompt=[], vocab_size=3, ends=np.array([0]))
    logits = np.array([3.0, 1.0, 0.5], dtype=np.float32)
    assert sampler.choose(logits.copy()) == 1
    assert sampler.logprob is not None
    assert sampler.logprob.top[0] == (0, pytest.approx(exact(logits)[0], abs=1e-6))
