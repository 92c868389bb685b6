"""Rows from files, and the answers to files that are missing or broken."""

import pytest
from task_files import ROWS, write_rows, write_task

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.tasks.documents import load_task_data, read_rows
from ptbr_slm.eval.tasks.task_file import read_task


def test_files_are_found_in_the_folders_named_first_then_beside_the_task(tmp_path):
    named = tmp_path / "dados"
    named.mkdir()
    write_rows(tmp_path / "cores.jsonl", ROWS[:1])
    write_rows(named / "cores.jsonl", ROWS)
    task = read_task(write_task(tmp_path))
    assert len(load_task_data(task).rows) == 1
    found = load_task_data(task, [named])
    assert len(found.rows) == 3
    assert found.sha256 != load_task_data(task).sha256


def test_a_task_of_the_hub_is_read_from_a_file_with_its_name(tmp_path):
    task = read_task(write_task(tmp_path, dataset_path="quem/cores", dataset_kwargs=None))
    with pytest.raises(SlmError, match="não estão aqui") as found:
        load_task_data(task)
    assert "--task-data" in found.value.hint
    write_rows(tmp_path / "cores.jsonl")
    assert len(load_task_data(task, [tmp_path]).rows) == 3


def test_json_csv_and_parquet_give_the_same_rows(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"frase": "Era uma", "fim": "vez"}, {"frase": 'Olá, "mundo"', "fim": "cruel"}]
    write_rows(tmp_path / "a.jsonl", rows)
    (tmp_path / "a.json").write_text(
        '[{"frase": "Era uma", "fim": "vez"},{"frase":"Olá, \\"mundo\\"","fim":"cruel"}]'
    )
    (tmp_path / "a.csv").write_text('frase,fim\nEra uma,vez\n"Olá, ""mundo""",cruel\n')
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for suffix in ("jsonl", "json", "csv", "parquet"):
        assert read_rows(tmp_path / f"a.{suffix}")[0] == rows


def test_a_bom_is_no_part_of_the_first_row(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": 2}')
    assert read_rows(path)[0] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("name", "data", "where"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "a.jsonl:2"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', "a.jsonl:2"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl"),
        ("a.jsonl", '{"a": "é"}'.encode("latin1"), "a.jsonl"),
        ("a.parquet", b"PAR1 nada", "a.parquet"),
        ("a.json", b'[{"a": 1}, 3]', "a.json, item 2"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, name, data, where):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SlmError) as found:
        read_rows(tmp_path / name)
    assert found.value.code == "E_TASK_DATA"
    assert found.value.where.endswith(where)


def test_a_task_without_rows_is_refused(tmp_path):
    (tmp_path / "cores.jsonl").write_text("\n")
    with pytest.raises(SlmError, match="nenhuma linha"):
        load_task_data(read_task(write_task(tmp_path)))
