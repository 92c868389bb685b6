"""index.json as types: what is written is read back, and its identity is of the content alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ptbr_slm.data import index
from ptbr_slm.data.index import FileEntry, Index, ShardEntry, SplitEntry, read_index, write_index
from ptbr_slm.errors import SlmError


@pytest.fixture
def made() -> Index:
    shard = ShardEntry("train-00000.bin", 20, "aa", tokens=10)
    train = SplitEntry(10, 2, 30, 6, FileEntry("train.offsets", 24, "bb"), (shard,))
    valid = SplitEntry(0, 0, 0, 0, FileEntry("valid.offsets", 8, "cc"), ())
    return Index(
        dtype="uint16",
        vocab_size=300,
        tokenizer_sha256="dd",
        bos_id=None,
        eos_id=1,
        splits={"train": train, "valid": valid},
        valid_fraction=0.01,
        dropped={"empty": 3},
    )


def test_what_is_written_is_read_back(tmp_path: Path, made: Index):
    write_index(tmp_path, made)
    assert read_index(tmp_path / index.NAME) == made


def test_the_identity_is_stored_and_is_that_of_the_content_alone(tmp_path: Path, made: Index):
    write_index(tmp_path, made)
    assert json.loads((tmp_path / index.NAME).read_text())["sha256"] == made.sha256
    assert replace(made, seed=7, dropped={}, ptbr_slm="0.0.1").sha256 == made.sha256
    assert replace(made, bos_id=0).sha256 != made.sha256


def test_keys_that_only_describe_may_be_missing_or_unknown(tmp_path: Path, made: Index):
    content = _plain(tmp_path, made)
    few = {key: content[key] for key in index.CONTENT}
    (tmp_path / index.NAME).write_text(json.dumps(index.with_sums({**few, "novidade": [1]})))
    assert read_index(tmp_path / index.NAME).sha256 == made.sha256


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float32"},
        {"vocab_size": "300"},
        {"vocab_size": True},
        {"eos_id": None},
        {"splits": {"train": {}}},
        {"splits": []},
        {"dropped": [1]},
    ],
)
def test_values_of_another_kind_are_corrupt(tmp_path: Path, made: Index, change: dict):
    (tmp_path / index.NAME).write_text(json.dumps(index.with_sums({**_plain(tmp_path, made), **change})))
    with pytest.raises(SlmError) as error:
        read_index(tmp_path / index.NAME)
    assert error.value.code == "E_DATA_CORRUPT" and "incompleto" in str(error.value)


def _plain(folder: Path, made: Index) -> dict:
    write_index(folder, made)
    body = json.loads((folder / index.NAME).read_text())
    return {
        key: value for key, value in body.items() if key not in ("schema", "kind", "sha256", "index_sha256")
    }
