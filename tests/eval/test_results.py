"""Results are read back as they were written, and nothing broken, newer or foreign is believed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.results import (
    NAME,
    BitsRecord,
    DocumentBits,
    ModelFacts,
    Part,
    Refusal,
    Results,
    TaskRecord,
    item_json,
    item_of,
    read_results,
    save_results,
)
from ptbr_slm.eval.statistics import Interval
from ptbr_slm.eval.tasks.metrics import ItemResult, TaskScore

ITEMS = (
    ItemResult("genero-1", "aa", {"acc": 1.0}, 0, 0, logprobs=(-1.5, -2.0)),
    ItemResult("genero-2", "ab", {"acc": 0.0}, "não", "é", cut=3),
)
TASK = TaskRecord(
    "gramatica", "Gramática", "1", "pares mínimos", "f" * 64, "d" * 64, 30, (TaskScore("acc", 0.5, None),),
    ITEMS, (Part("genero", "Gênero", 2),), {"chance": 0.5},
)  # fmt: skip
BITS = BitsRecord(
    "valid", "dados", "e" * 64, 64, 32, 90, 400, 1.25, Interval(1.1, 1.4), 45,
    (DocumentBits("0", "aa", 250.0, 200, 45), DocumentBits("1", "bb", 250.0, 200, 45)), ("curto",),
)  # fmt: skip
RESULTS = Results(
    ModelFacts("run/final", "c" * 64, 4_720_896, 256),
    (BITS,),
    (TASK,),
    (Refusal("bosque", "E_TOKENIZER_LOSSY", "o tokenizador perde 'Á'."),),
    12.5,
)


@pytest.fixture
def folder(tmp_path) -> Path:
    save_results(tmp_path / "r", RESULTS)
    return tmp_path / "r"


def test_results_come_back_as_they_were(folder):
    assert read_results(folder) == RESULTS == read_results(folder / NAME)
    assert read_results(folder).task("gramatica") == TASK and read_results(folder).source("x") is None
    assert sorted(p.name for p in (folder / "items").iterdir()) == ["bits-valid.jsonl", "gramatica.jsonl"]


def test_newer_results_and_more_files_take_the_place_of_older_ones_and_of_nothing_else(folder, tmp_path):
    (folder / "minhas-notas.txt").write_text("fica")
    save_results(folder, Results(RESULTS.model, (), (TASK,)), lambda new: (new / "p.html").touch())
    assert not (folder / "items/bits-valid.jsonl").exists() and (folder / "p.html").exists()
    assert (folder / "minhas-notas.txt").read_text() == "fica"
    (tmp_path / "outra").mkdir()
    (tmp_path / "outra" / "foto.jpg").touch()
    with pytest.raises(SlmError) as caught:
        save_results(tmp_path / "outra", RESULTS)
    assert caught.value.code == "E_EXISTS"


def test_a_failure_while_writing_leaves_the_older_results(folder):
    def full(new: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(SlmError) as caught:
        save_results(folder, Results(RESULTS.model, (), ()), full)
    assert caught.value.code == "E_DISK_FULL"
    assert read_results(folder) == RESULTS and not list(folder.parent.glob(".tmp-*"))


def test_two_tasks_never_share_a_file_and_no_name_leaves_the_folder(tmp_path):
    names = ["../../x", "a/b", "a_b", "", "bits-valid"]
    tasks = tuple(TaskRecord(n, n, "1", "", "", "", 2, (), ITEMS[:k]) for k, n in enumerate(names))
    save_results(tmp_path / "r", Results(RESULTS.model, (BITS,), tasks))
    assert [len(task.items) for task in read_results(tmp_path / "r").tasks] == [0, 1, 2, 2, 2]
    assert {p.parent.name for p in tmp_path.rglob("*.jsonl")} == {"items"}


def broken(folder: Path, change) -> SlmError:
    body = json.loads((folder / NAME).read_text())
    change(body)
    (folder / NAME).write_text(json.dumps(body))
    with pytest.raises(SlmError) as caught:
        read_results(folder)
    return caught.value


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (lambda body: body.update(schema=2), "E_SCHEMA", "mais nova"),
        (lambda body: body.update(kind="model"), "E_RESULTS", "não é"),
        (lambda body: body.pop("tasks"), "E_RESULTS", "'tasks'"),
        (lambda body: body["model"].pop("identity"), "E_RESULTS", "identity"),
        (lambda body: body["tasks"][0].update(scores=[1]), "E_RESULTS", ""),
        (lambda body: body["tasks"][0].update(novo=1), "E_RESULTS", "novo"),
        (lambda body: body["tasks"][0]["items"].update(sha256="0"), "E_RESULTS", "sha256"),
        (lambda body: body["tasks"][0]["items"].update(file="../x"), "E_RESULTS", "fora"),
        (lambda body: body["tasks"][0]["items"].update(file="items/nada.jsonl"), "E_NOT_FOUND", ""),
        (lambda body: body["bits_per_byte"][0].update(value="1,2"), "E_RESULTS", "1,2"),
    ],
)
def test_what_is_broken_is_named(folder, change, code, says):
    error = broken(folder, change)
    assert error.code == code and says in str(error)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"null", b"[" * 100_000])
def test_another_file_is_no_results(folder, content):
    (folder / NAME).write_bytes(content)
    with pytest.raises(SlmError) as caught:
        read_results(folder)
    assert caught.value.code == "E_RESULTS"


def test_an_item_file_that_was_cut_is_noticed(folder):
    file = folder / "items" / "gramatica.jsonl"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(SlmError, match="sha256"):
        read_results(folder)


names = st.text(max_size=20)
figures = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.builds(
        ItemResult, names, names, st.dictionaries(names, figures, max_size=3), st.integers() | names,
        st.integers() | names, st.integers(0, 9), st.lists(figures, max_size=4).map(tuple),
    )
)  # fmt: skip
def test_any_answer_survives_json(item):
    assert item_of(json.loads(json.dumps(item_json(item)))) == item


def test_figures_that_are_not_finite_are_written_as_null(tmp_path):
    item = ItemResult("1", "a", {"acc": 0.0}, 0, 1, logprobs=(-math.inf, -1.0))
    save_results(tmp_path / "r", Results(RESULTS.model, (), (TaskRecord("t", "t", "1", "", "", "", 1, (),
                                                                      (item,)),)))  # fmt: skip
    (found,) = read_results(tmp_path / "r").tasks[0].items
    assert math.isnan(found.logprobs[0]) and found.logprobs[1] == -1.0
