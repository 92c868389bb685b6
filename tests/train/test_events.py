"""Events: the JSON object of an event, and the event of a JSON object."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from ptbr_slm.events import Event, is_optional, key_of
from ptbr_slm.train import events
from ptbr_slm.train.events import Copied, Dropped, Evaluated, RolledBack, Step
from ptbr_slm.train.reporting.metrics import MetricsLog
from ptbr_slm.train.run import train

KINDS = [
    kind
    for kind in vars(events).values()
    if isinstance(kind, type) and issubclass(kind, Event) and "EVENT" in vars(kind)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_record_has_the_keys_of_its_class_and_tells_the_event_back(kind):
    values = {item.name: 1 for item in fields(kind)}
    record = kind(**values).record()
    assert record == {"event": kind.EVENT, **{key_of(item): 1 for item in fields(kind)}}
    assert kind.from_record({**record, "a_key_of_a_later_version": 2}) == kind(**values)
    assert all(item.metadata["about"].endswith(".") for item in fields(kind))


def test_a_key_without_a_value_is_left_out_only_where_it_is_optional():
    facts = {"learning_rate": 0.1, "tokens": 8, "tokens_per_second": 1.0, "elapsed_s": 1.0, "loss": 2.0}
    record = Step(step=1, grad_norm=None, **facts).record()
    assert record["grad_norm"] is None
    missing = {item.name for item in fields(Step)} - set(record)
    assert missing == {item.name for item in fields(Step) if is_optional(item)}
    assert Copied(step=1, source="a", path="b", message="c").record()["from"] == "a"
    assert "loss" not in {key_of(item) for item in fields(Dropped)}


def test_a_record_of_something_else_is_refused_and_never_read_as_an_event(tmp_path):
    with pytest.raises(ValueError, match="eval"):
        Evaluated.from_record({"event": "eval", "step": 3})
    (tmp_path / "metrics.jsonl").write_text('{"event": "eval", "step": 3}\n')
    with MetricsLog(tmp_path / "metrics.jsonl", 5) as metrics:
        assert metrics.has(Evaluated, 3)
        assert metrics.last(Evaluated) is None and metrics.last(RolledBack) is None


def test_all_that_a_run_tells_is_what_its_classes_say(settings, recorder):
    train(settings({"max_steps": 3, "evaluation.every": 2, "evaluation.sample_tokens": 3}), recorder)
    of = {kind.EVENT: kind for kind in reversed(KINDS)}
    assert {record["event"] for record in recorder.events} == {
        "start",
        "step",
        "eval",
        "sample",
        "checkpoint",
    }
    for record in recorder.events:
        again = of[record["event"]].from_record(record).record()
        assert json.loads(json.dumps(again)) == json.loads(json.dumps(record))
