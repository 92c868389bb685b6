"""Rows with all their fields, out of the types of files that have them."""

from __future__ import annotations

import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from ptbr_slm.data.document import Skipped
from ptbr_slm.data.read.files import ROW_FORMATS, format_of, list_files
from ptbr_slm.data.read.json_list import json_list_rows
from ptbr_slm.data.read.reader import Position, read_rows

fields = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=60), max_size=3)


class Slow(io.BytesIO):
    """Gives a few bytes at a time, as a pipe may."""

    def read(self, size=-1):
        return super().read(min(size, 7))


def rows_of(data: bytes, stream=io.BytesIO):
    return list(json_list_rows(stream(data), "a.json"))


@given(
    rows=st.lists(fields, max_size=6),
    indent=st.none() | st.integers(0, 2),
    mark=st.booleans(),
    lines=st.booleans(),
)
@runs(max_examples=100, deadline=None)
def test_a_list_and_objects_on_lines_are_read_item_by_item(rows, indent, mark, lines):
    if lines:
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    else:
        text = json.dumps(rows, indent=indent, ensure_ascii=False)
    data = (b"\xef\xbb\xbf" if mark else b"") + text.encode()
    for stream in (io.BytesIO, Slow):
        found = rows_of(data, stream)
        if not rows:
            assert found == [Skipped("empty", "a.json")]
        else:
            assert [row.fields for row in found] == rows
            assert [row.source for row in found] == [f"a.json:{at}" for at in range(1, len(rows) + 1)]


@pytest.mark.parametrize(
    ("data", "rows", "reason", "source"),
    [
        (b'[{"a": 1}, {"a": ', 1, "bad_json", "a.json:2"),
        (b'[{"a": 1} nada', 1, "bad_json", "a.json:2"),
        (b'[{"a": 1}, 3, {"a": 2}]', 2, "no_text", "a.json:2"),
        (b'[{"a": "n\xe3o"}]', 0, "not_utf8", "a.json:1"),
        ('[{"a": 1}]'.encode("utf-16"), 0, "utf16", "a.json:1"),
        (b"  \n", 0, "empty", "a.json"),
    ],
)
def test_what_is_wrong_is_told_with_its_item(data, rows, reason, source):
    found = rows_of(data)
    assert [(one.reason, one.source) for one in found if isinstance(one, Skipped)] == [(reason, source)]
    assert len(found) == rows + 1


def test_a_long_list_is_read_in_little_memory():
    import tracemalloc

    data = json.dumps([{"a": "x" * 1000}] * 20_000).encode()
    tracemalloc.start()
    assert sum(1 for _ in json_list_rows(io.BytesIO(data), "a")) == 20_000
    assert tracemalloc.get_traced_memory()[1] < 3e6
    tracemalloc.stop()


def test_a_cut_archive_ends_with_what_could_be_read(tmp_path):
    whole = gzip.compress(json.dumps([{"a": at} for at in range(50_000)]).encode())
    path = tmp_path / "a.json.gz"
    path.write_bytes(whole[: len(whole) // 2])
    (file,) = list_files([path], ROW_FORMATS)
    position = Position()
    found = list(read_rows(file, position))
    assert found[0].fields == {"a": 0} and len(found) > 1000
    assert found[-1].reason == "corrupt_file" and position.now == len(whole) // 2


def test_only_files_of_rows_are_listed(tmp_path):
    for name in ("a.jsonl", "b.json", "c.txt", "d.csv.zst", "e.parquet", "f.html"):
        (tmp_path / name).touch()
    found = list(list_files([tmp_path], ROW_FORMATS))
    assert [one.path.name for one in found if not isinstance(one, Skipped)] == [
        "a.jsonl", "b.json", "d.csv.zst", "e.parquet"]  # fmt: skip
    assert format_of("b.json") is None  # not a text
