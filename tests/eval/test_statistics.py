"""Intervals cover as they promise, and paired tests find differences where there are some and only there."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptbr_slm.eval.statistics import (
    FLIPS,
    binomial_test,
    bootstrap_mean,
    bootstrap_ratio,
    expanded_tail,
    holm,
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


def test_few_documents_widen_the_interval():
    """400 simulated sets of 8 documents; plain percentiles hold the truth in 85 % of 2,000 such."""
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(400):
        size = generator.integers(200, 4000, 8).astype(float)
        covered += 1.3 in bootstrap_ratio(size * generator.normal(1.3, 0.25, 8), size)
    assert 0.91 <= covered / 400 <= 0.99


def test_the_tail_is_that_of_students_t():
    """Hesterberg (2015): -sqrt(n / (n - 1)) t; qt(0.975, c(4, 9, 99)) of R is 2.7764, 2.2622, 1.9842."""
    for units, expected in [(5, 0.000955), (10, 0.00855), (100, 0.02306)]:
        assert expanded_tail(units) == pytest.approx(expected, rel=0.01)
    assert expanded_tail(10**6) == pytest.approx(0.025, rel=1e-3)


def test_right_and_wrong_are_drawn_by_kind_as_they_are_one_by_one():
    values = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0] * 20)
    by_kind = bootstrap_mean(values)
    one_by_one = bootstrap_mean(values + 1e-9 * np.arange(160))
    assert by_kind.low == pytest.approx(one_by_one.low, abs=0.01)
    assert by_kind.high == pytest.approx(one_by_one.high, abs=0.01)


def test_the_interval_of_one_unit_is_that_unit():
    found = bootstrap_mean([0.25])
    assert (found.low, found.high) == (0.25, 0.25)


def test_the_same_items_give_the_same_interval_and_memory_is_bounded():
    values = np.random.default_rng(3).random(8_000)  # drawn in several parts
    assert bootstrap_mean(values) == bootstrap_mean(values)


def test_no_units_is_an_error_of_the_caller():
    with pytest.raises(ValueError, match="at least one unit"):
        bootstrap_mean([])
    with pytest.raises(ValueError, match="at least one trial"):
        wilson_interval(0, 0)
    with pytest.raises(ValueError, match="pairs"):
        mcnemar([True], [])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_no_difference(value):
    with pytest.raises(ValueError, match="NaN"):
        paired_bootstrap([1.0, 2.0], [1.0, value])


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
    assert found.p_value == 1 / (FLIPS + 1)
    assert paired_bootstrap(base, base).p_value == 1.0


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=7))
def test_up_to_thirteen_documents_every_exchange_is_tried(tenths):
    """Against all exchanges written out; multiples of 0.1, whose sums differ in their last digits."""
    differences = np.array(tenths) / 10
    observed = abs(sum(tenths))
    every = [abs(sum(s * d for s, d in zip(signs, tenths, strict=True))) >= observed
             for signs in product((-1, 1), repeat=len(tenths))]  # fmt: skip
    found = paired_bootstrap(np.zeros(len(tenths)), differences)
    assert found.p_value == pytest.approx(sum(every) / len(every))


def test_random_exchanges_give_the_p_of_all_of_them():
    """Fourteen equal differences but one: 2 * (1 + 14) / 2 ** 14 by counting."""
    differences = np.array([1.0] * 13 + [-1.0])
    found = paired_bootstrap(np.zeros(14), differences)
    assert found.p_value == pytest.approx(30 / 2**14, abs=4 * (30 / 2**14 / FLIPS) ** 0.5)


def test_the_scale_of_the_values_changes_nothing():
    generator = np.random.default_rng(8)
    a, b = generator.normal(1, 0.3, (2, 40))
    p_values = {paired_bootstrap(a * scale, b * scale).p_value for scale in (1e-12, 1.0, 1e9)}
    assert len(p_values) == 1


@pytest.mark.parametrize(("won", "lost", "items"), [(0.05, 0.1, 20), (0.02, 0.02, 50), (0.3, 0.2, 100)])
def test_the_interval_of_mcnemar_covers(won, lost, items):
    generator = np.random.default_rng(4)
    covered = 0
    for _ in range(400):
        kinds = generator.choice(3, items, p=[won, lost, 1 - won - lost])
        covered += won - lost in mcnemar(kinds == 1, kinds == 0).interval
    assert covered / 400 >= 0.92


def test_no_answer_that_differs_still_has_an_interval():
    found = mcnemar([True] * 30, [True] * 30)
    assert found.difference == 0 and found.interval.low < -0.05 and found.interval.high > 0.05


def test_holm_gives_the_values_of_r():
    """p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm"), and out of order."""
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.9, 0.001, 0.04]) == pytest.approx([0.9, 0.003, 0.08])
    assert holm([]) == []


def test_one_family_is_wrong_in_five_percent():
    generator = np.random.default_rng(6)
    wrong = 0
    for _ in range(200):
        wrong += min(holm([mcnemar(*(generator.random((2, 60)) < 0.5)).p_value for _ in range(8)])) < 0.05
    assert wrong / 200 <= 0.09
