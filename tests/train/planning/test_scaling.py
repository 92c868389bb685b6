"""The scaling law that a plan reads its loss from: what it was fitted on, and what it may not say."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from ptbr_slm.config import SIZES
from ptbr_slm.train.planning.scaling import LARGEST_RUN, LAWS, SMALLEST_RUN, expected

ROOT = Path(__file__).resolve().parents[3]
ROW = re.compile(r"^\| [\d.]+M \| ([\d,]+) \| ([\d.]+)M \| ([\d.]+) \| ([\d.]+) \|", re.MULTILINE)


def published() -> list[tuple[int, float, float, float]]:
    """(parameters, tokens, measured, said by the law) of the runs in docs/benchmarks.md."""
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    section = page.split("<!-- scaling:start -->")[1].split("<!-- scaling:end -->")[0]
    rows = ROW.findall(section)
    return [(int(n.replace(",", "")), 1e6 * float(d), float(m), float(s)) for n, d, m, s in rows]


def test_the_law_is_the_one_whose_table_is_published():
    rows = published()
    assert len(rows) >= 7
    for parameters, tokens, measured, said in rows:
        assert LAWS[0].bits_per_byte(parameters, round(tokens)) == pytest.approx(said, abs=0.005)
        assert said == pytest.approx(measured, abs=0.05)
    assert {min(row[0] for row in rows), max(row[0] for row in rows)} == {SMALLEST_RUN[0], LARGEST_RUN[0]}
    assert max(row[1] for row in rows) == pytest.approx(LARGEST_RUN[1], rel=0.01)


def test_more_tokens_and_more_parameters_never_make_a_law_say_more_bits():
    grid = (10**6, 10**7, 10**8, 10**9, 10**10)
    for law, parameters in itertools.product(LAWS, grid):
        bits = [law.bits_per_byte(parameters, tokens) for tokens in grid]
        assert bits == sorted(bits, reverse=True)
        assert law.bits_per_byte(10 * parameters, 10**9) <= law.bits_per_byte(parameters, 10**9)


def test_the_interval_holds_the_middle_and_widens_with_the_distance_from_the_runs():
    near, far = expected(*LARGEST_RUN), expected(SIZES["85m"].num_parameters, 4_400_000_000)
    for said in (near, far):
        assert said.low <= said.bits <= said.high
    assert (far.high - far.low) / far.bits > 1.3 * (near.high - near.low) / near.bits


def test_the_interval_covers_what_the_rehearsals_of_plans_gave():
    for tokens, obtained in ((3_840_000, 1.901), (8_314_880, 1.834)):  # the nano shape, vocabulary of 4,096
        said = expected(422_336, tokens)
        assert said.low <= obtained <= said.high
