"""Rows of the hub: which files are brought, that they stay the same, and what is said without a network."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import COMMIT, HubServer, cut_after, refuse, serving
from task_files import ROWS, write_rows, write_task

from ptbr_slm.data.sources.hub_inputs import DownloadOptions
from ptbr_slm.data.sources.origin import RetryPolicy
from ptbr_slm.errors import SlmError
from ptbr_slm.eval.tasks.documents import is_here, load_task_data
from ptbr_slm.eval.tasks.items import task_items
from ptbr_slm.eval.tasks.task import Task
from ptbr_slm.eval.tasks.task_file import read_task

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("requests")

REPO = "ana/cores"


def parquet_file(rows) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    with serving(HubServer()) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def quick(notes: list[str]) -> DownloadOptions:
    return DownloadOptions(policy=RetryPolicy(attempts=2, sleep=lambda seconds: None), note=notes.append)


def hub_task(folder: Path, **changes) -> Task:
    keys = {"dataset_path": REPO, "dataset_kwargs": None, "dataset_name": "pt"} | changes
    return read_task(write_task(folder, **keys))


def test_the_converted_files_are_brought_and_the_commit_is_told(server, tmp_path, quick, notes):
    server.add(REPO, "pt/test/0000.parquet", parquet_file(ROWS[:2]))
    server.add(REPO, "pt/test/0001.parquet", parquet_file(ROWS[2:]))
    server.add(REPO, "pt/train/0000.parquet", parquet_file(ROWS[:1]))
    server.add(REPO, "en/test/0000.parquet", parquet_file(ROWS[:1]))
    task = hub_task(tmp_path)
    assert not is_here(task)
    data = load_task_data(task, download=quick)
    assert [dict(row) for row in data.rows] == ROWS
    assert data.source == f"hf://datasets/{REPO}@{COMMIT}/pt/test/*.parquet"
    assert server.asked("revision/refs/convert/parquet")
    assert not server.asked("/pt/train/") and not server.asked("/en/")
    assert any("CC0-1.0" in note for note in notes[:1])  # before the download
    assert [item.answers for item in task_items(task, data.rows)] == [(0,), (0,), (1,)]


def test_later_runs_use_the_same_commit_without_a_network(server, tmp_path, quick):
    server.add(REPO, "default/test/0000.parquet", parquet_file(ROWS))
    task = hub_task(tmp_path, dataset_name=None)
    first = load_task_data(task, download=quick)
    asked = len(server.requests)
    server.add(REPO, "default/test/0000.parquet", parquet_file(ROWS[:1]))
    assert is_here(task)
    again = load_task_data(task, download=quick)
    assert (again.sha256, again.source, len(server.requests)) == (first.sha256, first.source, asked)
    assert load_task_data(task).sha256 == first.sha256


def test_examples_come_from_their_own_split(server, tmp_path, quick):
    few = {"num_fewshot": 1, "fewshot_split": "train", "fewshot_config": {"sampler": "first_n"}}
    server.add(REPO, "pt/test/0000.parquet", parquet_file(ROWS[:1]))
    server.add(REPO, "pt/train/0000.parquet", parquet_file(ROWS[1:]))
    task = hub_task(tmp_path, **few)
    data = load_task_data(task, download=quick)
    (item,) = task_items(task, data.rows, data.fewshot_rows)
    assert item.prompt == "O mar é  salgado\n\nO céu é"
    assert data.sha256 != load_task_data(hub_task(tmp_path), download=quick).sha256


def test_a_cut_download_goes_on(server, tmp_path, quick):
    server.add(REPO, "pt/test/0000.parquet", parquet_file(ROWS))
    server.fail("/store/", cut_after(100))
    assert len(load_task_data(hub_task(tmp_path), download=quick).rows) == 3


@pytest.mark.parametrize("wrong", ["network", "refused", "nothing"])
def test_without_the_hub_the_address_and_the_file_to_save_are_told(
    server, tmp_path, quick, wrong, monkeypatch
):
    if wrong == "network":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    if wrong == "refused":
        server.fail("/api/", refuse(401))
    with pytest.raises(SlmError) as found:
        load_task_data(hub_task(tmp_path), download=quick)
    assert found.value.code == "E_TASK_DATA"
    assert "não consegui baixar os dados da tarefa cores" in found.value.message
    assert f"/datasets/{REPO}/resolve/refs%2Fconvert%2Fparquet/pt/test/0000.parquet" in found.value.hint
    assert "cores-test.parquet" in found.value.hint and "--task-data PASTA" in found.value.hint


def test_a_users_own_file_comes_first_by_any_of_its_names(server, tmp_path, quick):
    server.add(REPO, "pt/test/0000.parquet", parquet_file(ROWS))
    mine = tmp_path / "meus"
    mine.mkdir()
    task = hub_task(tmp_path)
    for count, name in enumerate(["cores.jsonl", "cores-pt.jsonl", "cores-test.jsonl"], 1):
        write_rows(mine / name, ROWS[:count])
        assert is_here(task, [mine])
    assert load_task_data(task, [mine], download=quick).source.endswith("cores-test.jsonl")
    assert not server.requests


def test_examples_are_not_taken_from_the_file_of_the_test(tmp_path):
    write_rows(tmp_path / "cores.jsonl")
    task = hub_task(tmp_path, num_fewshot=1, fewshot_split="train")
    with pytest.raises(SlmError, match="não estão aqui") as found:
        load_task_data(task, [tmp_path])
    assert found.value.where == "cores-train.parquet"
