"""How sure a score is, and whether two scores differ: intervals and paired tests. NumPy only, no SciPy.

Seeds are fixed: the same items give the same interval on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

RESAMPLES = 2000
"""Bootstrap samples. The end of a 95 % interval then moves by about 2 % of the interval's width."""
_SEED = 20261128
_Z95 = 1.959963984540054
_CELLS_AT_ONCE = 4_000_000
"""Indices drawn at once: 32 MB."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval, in the unit of the score."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def wilson_interval(successes: float, trials: int) -> Interval:
    """The score interval of a proportion (Wilson 1927), which holds near 0 and 1 too.

    Raises ValueError without trials.
    """
    if trials < 1:
        raise ValueError("an interval needs at least one trial")
    share = successes / trials
    spread = 1 + _Z95**2 / trials
    middle = (share + _Z95**2 / (2 * trials)) / spread
    half = _Z95 / spread * math.sqrt(share * (1 - share) / trials + _Z95**2 / (4 * trials**2))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def bootstrap_mean(values: Sequence[float] | Values) -> Interval:
    """The percentile interval of a mean over items (Efron 1979). values: (items,)."""
    return bootstrap_ratio(values, np.ones(len(values)))


def bootstrap_ratio(numerators: Sequence[float] | Values, denominators: Sequence[float] | Values) -> Interval:
    """The percentile interval of sum(numerators) / sum(denominators), with units drawn again as pairs.

    For bits per byte: the bits and the bytes of each document, (documents,) each. Documents are the units
    because the tokens of one document are not independent.
    """
    sums = _resampled(np.stack([_floats(numerators), _floats(denominators)], axis=1))
    return _percentiles(sums[:, 0] / sums[:, 1])


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """B against A on the same units."""

    difference: float
    """B's score minus A's."""
    interval: Interval
    """95 %, of the difference."""
    p_value: float
    """Two-sided: how often a difference at least so large appears where both are equally good."""

    @property
    def is_noise(self) -> bool:
        """Whether the difference could well be chance (p of 0.05 or more)."""
        return self.p_value >= 0.05


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> PairedDifference:
    """Two models' right and wrong answers to the same items, (items,) each: McNemar's exact test (1947).

    The p-value is that of a fair coin on the items where one is right and the other is wrong. The interval is
    the bootstrap's over items. Raises ValueError where the lengths differ or are 0.
    """
    first, second = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    _check_pairs(first, second)
    only_a = int((first & ~second).sum())
    only_b = int((second & ~first).sum())
    differences = second.astype(np.float64) - first
    p_value = binomial_test(min(only_a, only_b), only_a + only_b)
    return PairedDifference(float(differences.mean()), bootstrap_mean(differences), p_value)


def paired_bootstrap(
    a: Sequence[float] | Values, b: Sequence[float] | Values, weights: Sequence[float] | Values | None = None
) -> PairedDifference:
    """Two models' values of the same units, (units,) each (Koehn 2004).

    weights: what the sums are divided by, such as the bytes of documents; 1 a unit without it. The p-value
    is that of a permutation test by random exchange of the two models' values in each unit.
    Raises ValueError where the lengths differ or are 0.
    """
    first, second = _floats(a), _floats(b)
    _check_pairs(first, second)
    size = np.ones(len(first)) if weights is None else _floats(weights)
    differences = second - first
    found = float(differences.sum() / size.sum())
    return PairedDifference(found, bootstrap_ratio(differences, size), _sign_flip_test(differences))


def binomial_test(successes: int, trials: int, chance: float = 0.5) -> float:
    """The exact two-sided p-value of `successes` in `trials` where each succeeds with probability `chance`.

    Outcomes no likelier than the one found are added up, as R's binom.test does; 1.0 without trials.
    """
    if trials == 0:
        return 1.0
    logs = np.array([_log_binomial(k, trials, chance) for k in range(trials + 1)])
    likely = logs <= logs[successes] + 1e-7
    return float(min(1.0, np.exp(logs[likely]).sum()))


def _log_binomial(k: int, n: int, p: float) -> float:
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    hits = k * math.log(p) if k else 0.0
    misses = (n - k) * math.log1p(-p) if n > k else 0.0
    return ways + hits + misses


def _sign_flip_test(differences: Values) -> float:
    """(units,) -> p. The observed sum is one of the resamples: p is never 0 (Phipson, Smyth 2010)."""
    generator = np.random.default_rng(_SEED)
    observed = abs(differences.sum())
    as_large = 0
    for count in _batches(len(differences)):
        signs = generator.integers(0, 2, size=(count, len(differences)), dtype=np.int8) * 2 - 1
        as_large += int((np.abs(signs @ differences) >= observed - 1e-12).sum())
    return (as_large + 1) / (RESAMPLES + 1)


def _resampled(units: Values) -> Values:
    """(units, columns) -> (RESAMPLES, columns): the columns' sums over units drawn with replacement."""
    generator = np.random.default_rng(_SEED)
    parts = []
    for count in _batches(len(units)):
        drawn = generator.integers(0, len(units), size=(count, len(units)))  # (count, units)
        parts.append(units[drawn].sum(axis=1))
    return np.concatenate(parts)


def _batches(units: int) -> list[int]:
    """RESAMPLES in parts whose index arrays stay under `_CELLS_AT_ONCE`."""
    if units < 1:
        raise ValueError("an interval needs at least one unit")
    size = max(1, min(RESAMPLES, _CELLS_AT_ONCE // units))
    return [min(size, RESAMPLES - start) for start in range(0, RESAMPLES, size)]


def _percentiles(values: Values) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(low), float(high))


def _floats(values: Sequence[float] | Values) -> Values:
    return np.asarray(values, dtype=np.float64)


def _check_pairs(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> None:
    if len(a) != len(b) or not len(a):
        raise ValueError(f"pairs of the same items are needed: {len(a)} and {len(b)} values")
