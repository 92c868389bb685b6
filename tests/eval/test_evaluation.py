"""A run over benchmarks: interrupted, continued, with a limit, with little time, with answers of others."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from task_files import write_rows, write_task
from toy_subject import ToySubject

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.answers import Answers, AnswersKey
from ptbr_slm.eval.benchmark import Benchmark, grammar_benchmark, select_benchmarks
from ptbr_slm.eval.evaluation import Evaluation, Settings, evaluate
from ptbr_slm.eval.report.folder import write_report
from ptbr_slm.eval.tasks.metrics import ItemResult

ROWS = [
    {"id": f"n{number}", "pergunta": f"Pergunta {number}:", "opcoes": list("abcd"), "certa": number % 4}
    for number in range(50)
]
BATCH = 8


@dataclass
class CountingSubject(ToySubject):
    """Counts the requests; raises KeyboardInterrupt instead of the one after `last`."""

    last: int | None = None
    asked: list[str] = field(default_factory=list)

    def score(self, requests):
        for request in requests:
            if self.last is not None and len(self.asked) == self.last:
                raise KeyboardInterrupt
            self.asked.append(request[0])
            yield from super().score([request])


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr("ptbr_slm.eval.benchmark._BATCH_ITEMS", BATCH)


@pytest.fixture
def benchmark(tmp_path) -> Benchmark:
    write_rows(tmp_path / "cores.jsonl", ROWS)
    return select_benchmarks([str(write_task(tmp_path))], [tmp_path])[0]


def kept(tmp_path: Path) -> Settings:
    return Settings(answers=tmp_path / "answers")


def files(tmp_path: Path, found: Evaluation, name: str) -> dict[str, bytes]:
    """Every file of the written results but the manifest, whose time differs."""
    results = replace(found.results, seconds=0.0)
    write_report(tmp_path / name, results)
    folder = tmp_path / name
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


def test_an_interrupted_run_asks_only_the_rest_and_gives_the_same_files(benchmark, tmp_path):
    whole = evaluate(CountingSubject(), [benchmark], Settings())
    with pytest.raises(KeyboardInterrupt):
        evaluate(CountingSubject(last=2 * BATCH + 3), [benchmark], kept(tmp_path))
    again = CountingSubject()
    found = evaluate(again, [benchmark], kept(tmp_path))
    assert len(again.asked) == len(ROWS) - 2 * BATCH
    assert files(tmp_path, found, "continued") == files(tmp_path, whole, "whole")
    third = CountingSubject()
    evaluate(third, [benchmark], kept(tmp_path))
    assert not third.asked


def test_a_line_that_a_kill_cut_is_dropped_and_its_batch_asked_again(benchmark, tmp_path):
    whole = evaluate(CountingSubject(), [benchmark], kept(tmp_path))
    (file,) = (tmp_path / "answers").rglob("*.jsonl")
    content = file.read_bytes()
    file.write_bytes(content[:-20])
    again = CountingSubject()
    found = evaluate(again, [benchmark], kept(tmp_path))
    assert len(again.asked) == len(ROWS) % BATCH
    assert file.read_bytes() == content
    assert files(tmp_path, found, "again") == files(tmp_path, whole, "whole")


def test_answers_of_another_model_are_never_used_not_even_under_its_name(benchmark, tmp_path):
    evaluate(CountingSubject(), [benchmark], kept(tmp_path))
    other = CountingSubject(identity="1" * 64)
    evaluate(other, [benchmark], kept(tmp_path))
    assert len(other.asked) == len(ROWS)
    first, second = (tmp_path / "answers").rglob("*.jsonl")
    first.write_bytes(second.read_bytes())
    for identity in ("0" * 64, "1" * 64):
        subject = CountingSubject(identity=identity)
        found = evaluate(subject, [benchmark], kept(tmp_path))
        assert found.results.model.identity == identity
        header = json.loads(
            (tmp_path / "answers" / key(benchmark, identity).file).read_text().splitlines()[0]
        )
        assert header["subject"] == identity


def key(benchmark: Benchmark, identity: str) -> AnswersKey:
    return AnswersKey(identity, benchmark.task.name, benchmark.sha256, benchmark.data_sha256)


def test_a_file_that_changes_under_the_run_changes_nothing_but_the_next_run(benchmark, tmp_path):
    def change(progress):
        write_rows(tmp_path / "cores.jsonl", [{**row, "certa": 0} for row in ROWS])

    found = evaluate(CountingSubject(), [benchmark], kept(tmp_path), change)
    assert found.results == replace(
        evaluate(CountingSubject(), [benchmark], Settings()).results, seconds=found.results.seconds
    )
    (fresh,) = select_benchmarks([str(tmp_path / "cores.yaml")], [tmp_path])
    assert fresh.data_sha256 != benchmark.data_sha256
    subject = CountingSubject()
    evaluate(subject, [fresh], kept(tmp_path))
    assert len(subject.asked) == len(ROWS)


def test_a_larger_limit_asks_only_what_is_new_and_the_sample_is_drawn(benchmark, tmp_path):
    first = CountingSubject()
    evaluate(first, [benchmark], replace(kept(tmp_path), limit=10))
    second = CountingSubject()
    found = evaluate(second, [benchmark], replace(kept(tmp_path), limit=30))
    (record,) = found.results.tasks
    assert (len(record.items), record.of) == (30, 50)
    assert (len(first.asked), len(second.asked)) == (10, 20)
    assert set(first.asked) != {row["pergunta"] for row in ROWS[:10]}
    assert [item.id for item in record.items] == sorted(
        (item.id for item in record.items), key=lambda id: int(id[1:])
    )


def test_without_time_each_benchmark_gets_one_batch(benchmark, tmp_path):
    found = evaluate(CountingSubject(), [benchmark, grammar_benchmark()], Settings(seconds=1e-9))
    assert [len(record.items) for record in found.results.tasks] == [BATCH, BATCH]


def test_where_answers_cannot_be_kept_the_run_goes_on_and_says_so(benchmark, tmp_path):
    (tmp_path / "answers").write_text("a file is in the way")
    found = evaluate(CountingSubject(), [benchmark], kept(tmp_path))
    assert len(found.results.tasks[0].items) == len(ROWS)
    assert found.unkept is not None and found.unkept.code in ("E_IO", "E_NOT_FOUND", "E_EXISTS")


def test_answers_survive_what_json_does_not_know(tmp_path):
    which = AnswersKey("a", "b", "c", "d")
    odd = ItemResult("é\u2028\n", "x", {"acc": 1.0}, "linha\nnova", 0, 3, (-1.5, float("-inf")))
    Answers(which, tmp_path).add([odd])
    found = Answers(which, tmp_path).get(odd.id, odd.sha256)
    assert found is not None and found.logprobs[0] == -1.5 and replace(found, logprobs=odd.logprobs) == odd


def test_a_pair_is_right_in_either_order():
    suite = grammar_benchmark()
    items = [item for _, batch in suite.batches(suite.order(200)) for item in batch]
    assert {item.answers for item in items} == {(0,), (1,)}
    constant = evaluate(ToySubject(logprob=lambda prompt, text: -1.0), [suite], Settings())
    value = constant.results.tasks[0].scores[0].value
    assert abs(value - 0.5) < 3 * (0.25 / suite.size) ** 0.5


def test_an_unknown_task_names_the_nearest(tmp_path):
    with pytest.raises(SlmError) as caught:
        select_benchmarks(["inferbrr"])
    assert caught.value.code == "E_TASK" and "inferbr" in caught.value.hint
