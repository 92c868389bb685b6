"""Intervals cover as they promise, and paired tests find differences where there are some and only there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptbr_slm.eval.statistics import (
    RESAMPLES,
    binomial_test,
    bootstrap_mean,
    bootstrap_ratio,
    mcnemar,
    paired_bootstrap,
    wilson_interval,
)


def test_wilson_gives_the_published_values():
    """Newcombe (1998), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for successes, trials, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        found = wilson_interval(successes, trials)
        assert found.low == pytest.approx(low, abs=5e-5)
        assert found.high == pytest.approx(high, abs=5e-5)


@given(st.integers(1, 3000), st.data())
def test_wilson_holds_the_share_and_stays_between_0_and_1(trials, data):
    successes = data.draw(st.integers(0, trials))
    found = wilson_interval(successes, trials)
    assert 0 <= found.low <= successes / trials + 1e-12
    assert successes / trials - 1e-12 <= found.high <= 1


def test_the_bootstrap_of_documents_covers_the_truth():
    """200 simulated held-out sets of 80 documents: 89 to 99 % of the intervals hold the truth."""
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        size = generator.integers(200, 4000, 80).astype(float)
        bits = size * generator.normal(1.3, 0.25, 80)
        covered += 1.3 in bootstrap_ratio(bits, size)
    assert 0.89 <= covered / 200 <= 0.99


def test_the_interval_of_one_unit_is_that_unit():
    found = bootstrap_mean([0.25])
    assert (found.low, found.high) == (0.25, 0.25)


def test_the_same_items_give_the_same_interval_and_memory_is_bounded():
    values = np.random.default_rng(3).random(30_000)  # drawn in several parts
    assert bootstrap_mean(values) == bootstrap_mean(values)


def test_no_units_is_an_error_of_the_caller():
    with pytest.raises(ValueError, match="at least one unit"):
        bootstrap_mean([])
    with pytest.raises(ValueError, match="at least one trial"):
        wilson_interval(0, 0)
    with pytest.raises(ValueError, match="pairs"):
        mcnemar([True], [])


def test_binomial_gives_the_values_of_r():
    """binom.test(7, 10), binom.test(0, 5)."""
    assert binomial_test(7, 10) == pytest.approx(0.34375)
    assert binomial_test(0, 5) == pytest.approx(0.0625)
    assert binomial_test(0, 0) == 1.0
    assert binomial_test(5, 10) == pytest.approx(1.0)


def test_mcnemar_reads_only_the_items_that_differ():
    a = [True] * 50 + [False] * 50 + [True] * 10
    b = [True] * 50 + [False] * 50 + [False] * 10
    found = mcnemar(a, b)
    assert found.p_value == pytest.approx(2 * 0.5**10)
    assert found.difference == pytest.approx(-10 / 110)
    assert not found.is_noise
    assert mcnemar(a, a).p_value == 1.0


def test_paired_tests_say_noise_under_the_null_and_find_a_small_true_difference():
    generator = np.random.default_rng(5)
    false_alarms = 0
    for _ in range(100):
        a, b = generator.random((2, 300)) < 0.4
        false_alarms += not mcnemar(a, b).is_noise
    assert false_alarms <= 11  # 5 expected; P(> 11) < 1 %
    base = generator.normal(1.5, 0.5, 400)  # documents differ far more than the two models do
    better = base - 0.01 + generator.normal(0, 0.02, 400)
    found = paired_bootstrap(base, better)
    assert found.difference == pytest.approx(-0.01, abs=0.004)
    assert found.p_value == 1 / (RESAMPLES + 1)
    assert paired_bootstrap(base, base).p_value == 1.0
