"""The sampler against transformers' logits processors, and its draws."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.sampling.distribution import distribution
from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.runtime.sampling.penalties import penalise
from ptbr_slm.runtime.sampling.sampler import Sampler

torch = pytest.importorskip("torch", reason="compares with transformers: pip install 'ptbr-slm[train,dev]'")
processors = pytest.importorskip(
    "transformers.generation.logits_process", reason="compares with transformers: pip install 'ptbr-slm[dev]'"
)

PROPERTY = settings(max_examples=150, deadline=None)


@st.composite
def logits_arrays(draw):
    """Flat, peaked, tied and huge logits of a few to a few thousand tokens."""
    size = draw(st.one_of(st.integers(1, 12), st.integers(13, 3000)))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = random.normal(size=size) * draw(st.sampled_from([0.01, 1.0, 5.0, 50.0]))
    if draw(st.booleans()):
        scores = np.round(scores)  # many ties
    return scores.astype(np.float32)


def peers(params: SamplingParams, slack: float = 0.0):
    """transformers' chain in its own order; `slack` loosens top-p and min-p."""
    chain = [processors.TemperatureLogitsWarper(params.temperature)]
    if params.top_k:
        chain.append(processors.TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        chain.append(processors.TopPLogitsWarper(min(1.0, max(0.0, params.top_p + slack))))
    if params.min_p:
        chain.append(processors.MinPLogitsWarper(min(1.0, max(0.0, params.min_p - slack * params.min_p))))
    return chain


def peers_scores(logits, params, slack=0.0):
    scores = torch.from_numpy(logits.copy())[None]
    for processor in peers(params, slack):
        scores = processor(None, scores)
    return scores[0].numpy()


def count_drawable(scores) -> int:
    """Scores that are not left out, nor so far below the largest that float32 gives them a weight of 0."""
    return int((np.exp(scores - scores.max()) > 0).sum())


@PROPERTY
@given(
    logits=logits_arrays(),
    temperature=st.sampled_from([0.1, 0.7, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 2, 40, 5000]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.05]),
    min_p=st.sampled_from([0.0, 0.03, 0.5, 1.0]),
)
def test_kept_tokens_and_probabilities_are_those_of_transformers(logits, temperature, top_k, top_p, min_p):
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    ids, weights = distribution(logits.copy(), params)
    ids = np.arange(len(logits)) if ids is None else ids
    assert (np.diff(ids) > 0).all()
    ids, weights = ids[weights > 0], weights[weights > 0]

    # float32 cumulative sums differ in the last digits: the number kept may lie on either side of a border.
    fewest = count_drawable(peers_scores(logits, params, -1e-5))
    most = count_drawable(peers_scores(logits, params, +1e-5))
    assert fewest <= len(ids) <= most
    # Which of several tied tokens stay is arbitrary, also of those whose weights round to the same.
    best = np.sort(logits)[::-1][: len(ids)]
    np.testing.assert_allclose(np.sort(logits[ids])[::-1], best, rtol=0, atol=1e-6 * np.abs(logits).max())

    scaled = np.exp((best.astype(np.float64) - best[0]) / temperature)
    ours = np.sort(weights.astype(np.float64))[::-1]
    np.testing.assert_allclose(ours / ours.sum(), scaled / scaled.sum(), rtol=0, atol=2e-5)


@PROPERTY
@given(logits=logits_arrays(), penalty=st.sampled_from([0.5, 1.3, 3.0]), data=st.data())
def test_repetition_penalty_is_that_of_transformers(logits, penalty, data):
    seen = data.draw(st.lists(st.integers(0, len(logits) - 1), min_size=1, max_size=30))
    scores = torch.from_numpy(logits.copy())[None]
    expected = processors.RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([seen]), scores)[0].numpy()
    ours = logits.copy()
    penalise(ours, np.unique(seen), penalty)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_the_penalty_counts_the_prompt_and_what_was_generated():
    params = SamplingParams(temperature=0, repetition_penalty=10.0)
    sampler = Sampler(params, seed=0, prompt=[0], vocab_size=4)
    scores = np.array([4.0, 3.0, 2.0, 1.0], dtype=np.float32)
    assert [sampler.choose(scores.copy()) for _ in range(3)] == [1, 2, 3]


def test_greedy_takes_the_largest():
    sampler = Sampler(SamplingParams(temperature=0), seed=0, prompt=[], vocab_size=3)
    assert sampler.choose(np.array([-5.0, 2.0, 1.0], dtype=np.float32)) == 1


def test_draws_follow_the_probabilities():
    probabilities = np.array([0.5, 0.3, 0.15, 0.05])
    sampler = Sampler(SamplingParams(temperature=1.0, top_p=1.0), seed=5, prompt=[], vocab_size=4)
    scores = np.log(probabilities).astype(np.float32)
    drawn = np.bincount([sampler.choose(scores.copy()) for _ in range(8000)], minlength=4) / 8000
    np.testing.assert_allclose(drawn, probabilities, atol=0.02)  # over 3.5 standard deviations


def test_tokens_outside_the_kept_set_are_never_drawn():
    random = np.random.default_rng(0)
    scores = random.normal(size=500).astype(np.float32)
    sampler = Sampler(SamplingParams(temperature=2.0, top_p=1.0, top_k=3), seed=1, prompt=[], vocab_size=500)
    assert {sampler.choose(scores.copy()) for _ in range(300)} == set(np.argsort(scores)[-3:].tolist())


def test_the_same_seed_draws_the_same_and_another_seed_does_not():
    scores = np.zeros(1000, dtype=np.float32)

    def drawn(seed):
        sampler = Sampler(SamplingParams(), seed=seed, prompt=[], vocab_size=1000)
        return [sampler.choose(scores.copy()) for _ in range(10)]

    assert drawn(1) == drawn(1) != drawn(2)


def test_rounding_errors_in_the_logits_do_not_change_the_draw():
    """A sequence in a batch differs from the sequence alone by rounding; the drawn token must not."""
    random = np.random.default_rng(2)
    scores = random.normal(size=2000).astype(np.float32)
    noisy = scores + random.normal(size=2000).astype(np.float32) * 1e-6
    params = SamplingParams(temperature=1.0, top_p=0.9)
    one, other = (Sampler(params, seed=9, prompt=[], vocab_size=2000) for _ in range(2))
    same = sum(one.choose(scores.copy()) == other.choose(noisy.copy()) for _ in range(300))
    assert same >= 297


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_a_clear_error(temperature, bad):
    sampler = Sampler(SamplingParams(temperature=temperature), seed=0, prompt=[], vocab_size=3)
    with pytest.raises(SlmError, match="não são números") as error:
        sampler.choose(np.array([0.0, bad, 1.0], dtype=np.float32))
    assert error.value.code == "E_MODEL_INVALID"


@pytest.mark.parametrize(
    "option",
    [
        {"temperature": float("nan")},
        {"temperature": -0.1},
        {"temperature": float("inf")},
        {"temperature": "quente"},
        {"top_p": 0.0},
        {"top_p": 1.01},
        {"top_k": -1},
        {"top_k": 1.5},
        {"min_p": 1.5},
        {"min_p": float("nan")},
        {"repetition_penalty": 0.0},
        {"max_new_tokens": -1},
        {"max_new_tokens": True},
        {"min_tokens": -1},
        {"min_tokens": 129},
        {"min_tokens": True},
        {"ignore_eos": 1},
        {"stop_token_ids": [2]},
        {"stop_token_ids": (-1,)},
        {"stop_token_ids": (True,)},
        {"stop_token_ids": ("2",)},
        {"stop_token_ids": (2,) * 65},
        {"seed": -1},
        {"seed": 1.0},
        {"presence_penalty": 2.5},
        {"frequency_penalty": float("nan")},
        {"logit_bias": {3: 101.0}},
        {"logit_bias": {-1: 1.0}},
        {"logit_bias": {"3": 1.0}},
        {"logit_bias": [3]},
        {"logprobs": 21},
        {"logprobs": True},
        {"prompt_logprobs": 1},
        {"first_logits": 1},
        {"n": 0},
        {"n": 65},
        {"lookahead": 33},
        {"timeout_s": 0.0},
        {"json_schema": 3},
        {"regex": ""},
        {"regex": 3},
        {"stop": ("",)},
        {"stop": (1,)},
        {"stop": ("a",) * 65},
        {"stop": ("a" * 1001,)},
    ],
)
def test_sampling_values_out_of_range_say_which_and_what_to_type(option):
    with pytest.raises(SlmError) as error:
        SamplingParams(**option)
    (name,) = option
    assert (error.value.code, error.value.where) == ("E_SAMPLING", name)
    assert error.value.hint


@pytest.mark.parametrize("form", [{"regex": "a+"}, {"json_schema": {}}])
@pytest.mark.parametrize("end", [{"ignore_eos": True}, {"min_tokens": 1}])
def test_a_form_says_itself_where_the_text_ends(form, end):
    with pytest.raises(SlmError, match="não andam juntos") as error:
        SamplingParams(**form, **end)
    assert (error.value.code, error.value.where) == ("E_SAMPLING", next(iter(end)))


def test_two_forms_at_once_are_refused():
    with pytest.raises(SlmError, match="não andam juntos") as error:
        SamplingParams(json_schema={}, regex="a")
    assert error.value.code == "E_SAMPLING"


@st.composite
def choices(draw):
    """Two texts that choose in turn, as a batch's do: their options and logits of their own sizes."""
    texts = []
    for _ in range(2):
        params = SamplingParams(
            temperature=draw(st.sampled_from([0.0, 0.8, 1.0, 3.0])),
            top_k=draw(st.sampled_from([0, 40])),
            top_p=draw(st.sampled_from([1.0, 0.95, 0.3])),
            min_p=draw(st.sampled_from([0.0, 0.02])),
            repetition_penalty=draw(st.sampled_from([1.0, 1.2])),
            logprobs=draw(st.sampled_from([None, 0, 3])),
            min_tokens=draw(st.sampled_from([0, 2])),
        )
        texts.append((params, draw(logits_arrays()), draw(st.integers(0, 2**32))))
    return texts


@PROPERTY
@given(texts=choices(), order=st.lists(st.booleans(), max_size=12))
def test_a_choice_depends_on_no_other_text_of_the_thread(texts, order):
    """All choices of a thread work in the same arrays."""

    def made(params, logits, seed):
        return Sampler(params, seed, [0], len(logits), ends=np.array([0]) if len(logits) > 1 else None)

    def choose(sampler, logits):
        return sampler.choose(logits.copy()), sampler.logprob

    together = [made(*text) for text in texts]
    found = [[], []]
    for which in order:
        found[which].append(choose(together[which], texts[which][1]))
    for which, (params, logits, seed) in enumerate(texts):
        alone = made(params, logits, seed)
        assert found[which] == [choose(alone, logits) for _ in found[which]]


def test_threads_that_choose_at_once_choose_as_alone():
    random = np.random.default_rng(0)
    logits = [random.normal(size=size).astype(np.float32) for size in (40_000, 3000, 20_000, 31_999)]

    def drawn(which):
        sampler = Sampler(SamplingParams(logprobs=2), which, [], len(logits[which]))
        return [(sampler.choose(logits[which].copy()), sampler.logprob) for _ in range(40)]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(drawn, range(4)))
    assert found == [drawn(which) for which in range(4)]


@settings(max_examples=80, deadline=None)
@given(
    size=st.integers(1, 40_000),
    kind=st.sampled_from(["flat", "falling", "tied", "equal"]),
    share=st.floats(0.001, 0.999),
    seed=st.integers(0, 2**32),
)
def test_the_nucleus_is_that_of_a_stable_sort(size, kind, share, seed):
    """Through bins or not, floors or not: the largest until they reach the share, of equal ones the first."""
    random = np.random.default_rng(seed)
    scores = {
        "flat": lambda: random.normal(size=size),
        "falling": lambda: random.permutation(-1.3 * np.log(np.arange(1, size + 1))),
        "tied": lambda: np.round(random.normal(size=size), 1),
        "equal": lambda: np.zeros(size),
    }[kind]()
    params = SamplingParams(temperature=1.0, top_p=share)
    ids, kept = distribution(scores.astype(np.float32), params)
    ids = np.arange(size) if ids is None else ids
    ids = ids[kept > 0]

    weights = np.exp((scores.astype(np.float32) - scores.astype(np.float32).max()).astype(np.float32))
    order = np.argsort(-weights, kind="stable")
    sums = np.cumsum(weights[order].astype(np.float64))
    number = int(np.searchsorted(sums, share * sums[-1])) + 1
    near = abs(sums[min(number, size) - 1] / sums[-1] - share)
    if near > 1e-9 and (
        number < 2 or abs(sums[number - 2] / sums[-1] - share) > 1e-9
    ):  # else rounding decides
        np.testing.assert_array_equal(ids, np.sort(order[:number]))
