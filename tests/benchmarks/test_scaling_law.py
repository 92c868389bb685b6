"""The fit of the scaling law: what was put in comes out, and what cannot be told is said to be so."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ptbr_slm.train.planning.scaling import Law

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TRUE = Law(0.7, 12.0, 0.22, 20.0, 0.22)  # exponents of the grid


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """benchmarks/scaling_law.py."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("scaling_law")
    for name in ("scaling_law", "scaling_runs", "results", "machine", "alone"):
        sys.modules.pop(name, None)


def runs(script: ModuleType, law: Law = TRUE, noise: float = 0.0) -> list[Any]:
    """Runs that a law explains, but for a noise that takes turns."""
    grid = itertools.product((600_000, 1_000_000, 2_000_000, 4_000_000), (500_000, 1_000_000, 2_000_000))
    return [
        script.Observed(
            name="",
            parameters=n,
            tokens=d,
            bits=law.bits_per_byte(n, d) + noise * (-1) ** index,
            deviation=0.01,
        )
        for index, (n, d) in enumerate(grid)
    ]


def test_a_law_that_the_runs_follow_is_found_and_predicts_what_was_left_out(script):
    found = script.fit(runs(script), TRUE.size_exponent, TRUE.data_exponent)
    for name in ("floor", "size", "data"):
        assert getattr(found.law, name) == pytest.approx(getattr(TRUE, name), rel=1e-6)
    assert max(map(abs, script.left_out(runs(script), []))) < 1e-6


def test_no_part_is_negative_and_no_floor_too_low_even_where_least_squares_would_have_it_so(script):
    for exponent in (0.04, 0.6):
        law = script.fit(runs(script, Law(0.1, 5.0, 0.2, 200.0, 0.25)), exponent, exponent).law
        assert law.floor >= script.LEAST_FLOOR and min(law.size, law.data) >= 0


def test_rivals_hold_the_truth_and_part_where_nobody_measured(script):
    kept = script.rivals(runs(script, noise=0.004))
    assert len(kept) > 5  # these runs cannot tell the exponents
    near, far = (
        [one.law.bits_per_byte(*place) for one in kept] for place in ((2_000_000, 10**6), (87_500_000, 4.4e9))
    )
    assert min(far) <= TRUE.bits_per_byte(87_500_000, 4.4e9) <= max(far)
    assert max(far) - min(far) > 5 * (max(near) - min(near))
    assert script.ends(kept)[0] == kept[0].law


def test_what_others_measured_narrows_what_is_said_of_large_models(script):
    ours = runs(script, noise=0.004)
    others = [
        script.Observed(
            name="", parameters=n, tokens=d, bits=TRUE.bits_per_byte(n, d), deviation=script.THEIRS
        )
        for n, d in ((162_000_000, 10e9), (630_000_000, 200e9))
    ]

    def width(observed: list[Any]) -> float:
        says = [one.law.bits_per_byte(87_500_000, 4.4e9) for one in script.rivals(observed)]
        return max(says) - min(says)

    assert width([*ours, *others]) < 0.7 * width(ours)
