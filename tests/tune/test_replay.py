"""Pre-training text among the conversations: which windows are text is a pure function of their number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from listeners import Recorder
from tiny_runs import records

from ptbr_slm.train.batches import MicroBatch
from ptbr_slm.train.run import train
from ptbr_slm.tune.replay import WithReplay
from ptbr_slm.tune.spec import TuneSpec


class Numbers:
    """A source whose sequences hold nothing but its mark and their own number."""

    def __init__(self, mark: int) -> None:
        self.mark = mark

    def sequences(self, windows, share=slice(None)):
        numbers = np.array([window for piece in windows for window in piece], dtype=np.int64)[share]
        tokens = np.stack([np.full_like(numbers, self.mark), numbers], axis=1)  # (B, 2)
        return MicroBatch(tokens, tokens, np.zeros(tokens.shape, np.int32))


def read(share, *windows, part=slice(None)):
    return WithReplay(Numbers(0), Numbers(1), share).sequences(windows, part).tokens.tolist()


@given(st.floats(0.01, 0.9), st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 59))
def test_a_window_is_the_same_however_it_is_asked_for(share, first, count, cut):
    cut = min(cut, count)
    whole = read(share, range(first, first + count))
    assert whole == [read(share, range(w, w + 1))[0] for w in range(first, first + count)]
    assert whole == read(share, range(first, first + cut), range(first + cut, first + count))
    parts = [part for part in (slice(0, cut), slice(cut, None)) if range(count)[part]]
    ranks = [read(share, range(first, first + count), part=part) for part in parts]
    assert whole == [sequence for rank in ranks for sequence in rank]


@given(st.floats(0.01, 0.9), st.integers(0, 10**6), st.integers(1, 500))
def test_the_share_holds_in_any_windows_in_a_row(share, first, count):
    marks = [mark for mark, _ in read(share, range(first, first + count))]
    assert abs(sum(marks) - share * count) < 1 + 1e-6 * (first + count)


def test_each_source_is_read_in_order_without_a_gap():
    whole = read(0.3, range(1000))
    for mark in (0, 1):
        numbers = [number for source, number in whole if source == mark]
        assert numbers == list(range(len(numbers)))
    assert len([1 for source, _ in whole if source == 1]) == 300


@pytest.mark.parametrize("measured", [False, True])
def test_forgetting_is_measured_before_the_first_step_and_at_evaluations(settings, text, measured, recorder):
    replay = {"tune__replay": 0.5, "tune__replay_data": text} if measured else {}
    result = train(settings(evaluation__every=3, **replay), recorder, spec=TuneSpec())
    evaluated = recorder.named("eval")
    assert [event["step"] for event in evaluated] == [0, 3, 6]
    assert evaluated == records(result.run, "eval")
    assert all(("text_bits_per_byte" in event) == measured for event in evaluated)
    report = (result.run / "report" / "report.html").read_text()
    assert ("no texto do pré-treino" in report) == measured


def test_replay_keeps_more_of_the_text_than_conversations_alone(settings, text, tmp_path):
    """The mechanism: a model that knows the text, tuned with and without it among the conversations."""
    knows = train(settings(output=tmp_path / "sabe", max_steps=16, tune__replay=0.9, tune__replay_data=text),
                  spec=TuneSpec()).model  # fmt: skip
    after = {}
    for share in (0.0, 0.5):
        values = {"tune__replay": share, "tune__replay_data": text, "evaluation__every": 20, "max_steps": 20}
        run = train(settings(base=knows, output=tmp_path / f"{share}", **values), spec=TuneSpec()).run
        before, *_, after[share] = [event["text_bits_per_byte"] for event in records(run, "eval")]
        assert before == pytest.approx(records(tmp_path / "sabe", "eval")[-1]["text_bits_per_byte"], rel=1e-5)
    assert after[0.5] < after[0.0]


@pytest.fixture
def recorder():
    return Recorder()
