"""The order of the data is a pure function of (seed, epoch, cursor)."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.train.batches import WindowOrder, _keys, permute


@given(size=st.integers(1, 3000), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_every_window_of_an_epoch_comes_exactly_once(size, seed, epoch):
    assert sorted(permute(np.arange(size), size, _keys(seed, epoch))) == list(range(size))


@given(
    tokens=st.integers(2, 5000),
    seq_len=st.integers(1, 300),
    seed=st.integers(0, 99),
    cursor=st.integers(0, 10**6),
)
@settings(max_examples=100, deadline=None)
def test_windows_lie_inside_the_text(tokens, seq_len, seed, cursor):
    if tokens <= seq_len:
        return
    starts = WindowOrder(tokens, seq_len, seed).starts(cursor, 17)
    assert starts.min() >= 0 and starts.max() + seq_len + 1 <= tokens


@given(cuts=st.lists(st.integers(1, 40), min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_however_the_run_is_cut_it_sees_the_same_windows(cuts):
    order = WindowOrder(tokens=1000, seq_len=32, seed=7)
    pieces, cursor = [], 0
    for count in cuts:
        pieces.append(order.starts(cursor, count))
        cursor += count
    assert np.array_equal(np.concatenate(pieces), order.starts(0, cursor))


def test_epochs_and_seeds_differ_in_order_and_offset():
    order = WindowOrder(tokens=10_000, seq_len=64, seed=1)
    first, second = order.starts(0, order.windows), order.starts(order.windows, order.windows)
    other = WindowOrder(10_000, 64, seed=2).starts(0, order.windows)
    assert not np.array_equal(first, second) and not np.array_equal(first, other)
    assert len({int(a[0]) % 64 for a in (first, second, other)}) > 1
    assert len(set(first % 64)) == 1, "an epoch's windows share one offset, so none overlaps another"


def test_the_order_is_fixed_for_ever():
    """A resume after an upgrade must see the same windows: these numbers never change."""
    assert WindowOrder(10_000, 64, seed=0).starts(150, 8).tolist() == GOLDEN


GOLDEN = [6805, 5205, 5909, 1621, 661, 6993, 3793, 17]


def test_shuffle_leaves_no_visible_order():
    starts = WindowOrder(tokens=64_000, seq_len=32, seed=0).starts(0, 1900)
    correlation = np.corrcoef(np.arange(1900), starts)[0, 1]
    neighbours = np.mean(np.abs(np.diff(starts)) <= 32)
    assert abs(correlation) < 0.07 and neighbours < 0.01
