"""Opening prepared data: damage of any kind is found and named."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from ptbr_slm.data import index
from ptbr_slm.data.audit.collect import collect
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.recipe import Recipe, Source
from ptbr_slm.data.records import GROUPS
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.manifest import sha256_file
from ptbr_slm.tokenizer import Tokenizer


def refused(path: Path, *, verify: bool = True) -> SlmError:
    with pytest.raises(SlmError) as error:
        PreparedData.open(path, verify=verify)
    return error.value


def rewrite_index(data: PreparedData, change) -> None:
    """Change the index as a foreign tool would: with correct sums."""
    body = json.loads((data.folder / index.NAME).read_text())
    change(body)
    written = ("schema", "kind", "sha256", "index_sha256")
    changed = {key: value for key, value in body.items() if key not in written}
    (data.folder / index.NAME).write_text(json.dumps(index.with_sums(changed)))


def test_a_folder_its_index_and_any_of_its_shards_open_the_same_data(data: PreparedData):
    for path in (data.folder, data.folder / "index.json", data.folder / "train-00001.bin"):
        assert PreparedData.open(path).sha256 == data.sha256


@pytest.mark.parametrize("name", ["train-00001.bin", "valid-00000.bin", "train.offsets"])
def test_one_flipped_bit_is_found(data: PreparedData, name: str):
    path = data.folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x01
    path.write_bytes(content)
    error = refused(data.folder)
    assert (error.code, error.exit_code) == ("E_DATA_CORRUPT", 3) and name in str(error)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("damage", ["truncated", "longer", "missing"])
def test_a_shard_of_another_size_is_found_even_without_reading_it(
    data: PreparedData, damage: str, verify: bool
):
    path = data.folder / "train-00000.bin"
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-2] if damage == "truncated" else content + b"\0\0")
    assert refused(data.folder, verify=verify).code == "E_DATA_CORRUPT"


@pytest.fixture
def recorded(corpus: Path, tmp_path: Path, tokenizer: Tokenizer) -> PreparedData:
    """The corpus, prepared with records."""
    recipe = Recipe((Source((corpus,)),), None, keep_records=True)
    return prepare([], tmp_path / "registrados", tokenizer, recipe=recipe, valid_fraction=0.1)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("damage", ["truncated", "longer", "missing", "flipped"])
def test_damaged_records_are_found_by_size_when_opened_and_by_sha256_in_the_audit(
    recorded: PreparedData, group: str, damage: str
):
    path = recorded.folder / f"{group}.documents.gz"
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "flipped":
        content[4] ^= 1  # the time in gzip's header, which no reader of gzip checks
        path.write_bytes(content)
        with pytest.raises(SlmError) as error:
            collect(PreparedData.open(recorded.folder, verify=False))
        assert error.value.code == "E_DATA_CORRUPT" and path.name in str(error.value)
    else:
        path.write_bytes(content[:-2] if damage == "truncated" else content + b"\0")
    for verify in (True, False) if damage != "flipped" else (True,):
        error_ = refused(recorded.folder, verify=verify)
        assert (error_.code, error_.exit_code) == ("E_DATA_CORRUPT", 3) and path.name in str(error_)


@pytest.mark.parametrize(
    "records", [7, "nada", [7], [{"file": "train.documents.gz"}], [{"file": "../a", "size": 1, "sha256": ""}]]
)
def test_an_index_that_describes_records_wrongly_is_refused(recorded: PreparedData, records: object):
    rewrite_index(recorded, lambda body: body["recipe"].update(records=records))
    assert refused(recorded.folder).code == "E_DATA_CORRUPT"


def test_a_changed_broken_or_foreign_index_is_only_ever_our_error(data: PreparedData):
    path = data.folder / "index.json"
    content = path.read_bytes()
    pick = random.Random(1)
    for _ in range(60):
        bad = bytearray(content)
        bad[pick.randrange(len(bad))] ^= 1 << pick.randrange(8)
        path.write_bytes(bad)
        assert refused(data.folder).code in ("E_DATA_CORRUPT", "E_SCHEMA")
    for content in (b"", b"[]", b"null", b'{"kind": "prepared-data", "schema": 1}', b"\xff", b"[" * 100_000):
        path.write_bytes(content)
        assert refused(data.folder).code == "E_DATA_CORRUPT"


@pytest.mark.parametrize(
    "change",
    [
        lambda train: train.pop("documents"),
        lambda train: train.update(documents=1),
        lambda train: train.update(tokens=1),
        lambda train: train.update(shards=[{}]),
        lambda train: train.update(shards=None),
        lambda train: train["shards"][0].update(file=7),
        lambda train: train["shards"][0].update(tokens="muitos"),
        lambda train: train["shards"].pop(),
    ],
)
def test_an_index_that_agrees_with_its_sums_but_not_with_the_files_is_refused(data: PreparedData, change):
    rewrite_index(data, lambda body: change(body["splits"]["train"]))
    assert refused(data.folder).code == "E_DATA_CORRUPT"


def test_an_index_that_points_outside_its_folder_is_refused(data: PreparedData, tmp_path: Path):
    shutil.copy(data.folder / "train-00000.bin", tmp_path / "fora.bin")
    rewrite_index(data, lambda body: body["splits"]["train"]["shards"][0].update(file="../fora.bin"))
    assert refused(data.folder).code == "E_DATA_CORRUPT"


def test_data_from_a_newer_version_are_refused_with_the_way_out(data: PreparedData):
    body = json.loads((data.folder / "index.json").read_text())
    (data.folder / "index.json").write_text(json.dumps({**body, "schema": 99}))
    error = refused(data.folder)
    assert error.code == "E_SCHEMA" and "99 > 1" in str(error) and "pip install -U" in error.hint


def foreign_id(data: PreparedData, at: int) -> None:
    path = data.folder / "train-00001.bin"
    ids = np.fromfile(path, dtype="<u2")
    ids[at] = data.vocab_size
    ids.tofile(path)

    def agree(body: dict) -> None:
        body["splits"]["train"]["shards"][1]["sha256"] = sha256_file(path)

    rewrite_index(data, agree)


def test_an_id_outside_the_vocabulary_is_refused_with_shard_and_position(data: PreparedData):
    foreign_id(data, 37)
    error = refused(data.folder)
    assert error.code == "E_DATA_CORRUPT"
    assert "posição 37" in str(error) and "train-00001.bin" in str(error)


def test_an_id_outside_the_vocabulary_is_refused_when_read_too(data: PreparedData):
    foreign_id(data, 37)
    train = PreparedData.open(data.folder, verify=False).split("train")
    first = np.fromfile(data.folder / "train-00000.bin", dtype="<u2").size
    assert len(train.read(0, first + 37)) == first + 37
    with pytest.raises(SlmError) as error:
        train.read(first - 5, first + 60)
    assert error.value.code == "E_DATA_CORRUPT" and "posição 37" in str(error.value)


def test_a_swapped_or_missing_tokenizer_is_refused(data: PreparedData, texts: list[str]):
    (data.folder / "tokenizer.json").write_text(Tokenizer.train(texts, 300).to_json(), encoding="utf-8")
    error = refused(data.folder)
    assert (error.code, error.exit_code) == ("E_TOKENIZER_MISMATCH", 3)
    (data.folder / "tokenizer.json").unlink()
    assert refused(data.folder).code == "E_TOKENIZER_MISSING"


@pytest.mark.parametrize("name", ["nada", "nada.bin", "nada/index.json"])
def test_what_is_not_there_is_not_found(tmp_path: Path, name: str):
    assert refused(tmp_path / name).code == "E_NOT_FOUND"


def test_a_folder_or_bin_without_an_index_is_not_prepared_data(tmp_path: Path):
    (tmp_path / "train.bin").write_bytes(b"\0\0")
    for path in (tmp_path, tmp_path / "train.bin"):
        error = refused(path)
        assert error.code == "E_NOT_FOUND" and "index.json" in str(error)


# document_ids: which document each token of a window is in


def document_ids_by_walking(offsets: list[int], starts: list[int], length: int) -> list[list[int]]:
    """The slow definition: the last document that begins at or before the token."""
    return [
        [max(d for d, begin in enumerate(offsets[:-1]) if begin <= at) for at in range(start, start + length)]
        for start in starts
    ]


def test_document_ids_across_shards_are_those_of_a_slow_walk(data: PreparedData):
    pick = random.Random(5)
    for name in ("train", "valid"):
        split = data.split(name)
        offsets = split.document_offsets().tolist()
        for length in (1, 2, 3, 17, 257, min(900, split.tokens)):
            starts = [pick.randrange(split.tokens - length + 1) for _ in range(pick.randrange(1, 9))]
            starts += [0, split.tokens - length, min(offsets[1], split.tokens - length)]
            ids = data.document_ids(name, np.array(starts), length)
            assert (ids.shape, ids.dtype) == ((len(starts), length), np.int32)
            assert ids.tolist() == document_ids_by_walking(offsets, starts, length)
    assert len(list(data.folder.glob("train-*.bin"))) > 1, "the train windows cross shards"


def test_every_document_begins_with_bos_where_its_number_first_appears(data: PreparedData):
    split = data.split("train")
    ids = split.document_ids(np.array([0]), split.tokens)[0]
    tokens = split.read(0, split.tokens)
    begins = np.flatnonzero(np.diff(ids, prepend=-1))
    assert ids[-1] == split.documents - 1 and len(begins) == split.documents
    assert (tokens[begins] == data.load_tokenizer().bos_id).all()


@pytest.mark.parametrize("seed", range(20))
def test_document_ids_of_any_lengths_of_documents_even_none(
    data: PreparedData, monkeypatch: pytest.MonkeyPatch, seed: int
):
    pick = random.Random(seed)
    lengths = [pick.choice([0, 1, 1, 2, 5, 40]) for _ in range(pick.randrange(1, 30))] + [1]
    offsets = np.cumsum([0, *lengths])
    split = data.split("train")
    monkeypatch.setattr(split, "_offsets", offsets)
    monkeypatch.setattr(split, "tokens", int(offsets[-1]))
    length = pick.randrange(1, split.tokens + 1)
    starts = [pick.randrange(split.tokens - length + 1) for _ in range(6)]
    expected = document_ids_by_walking(offsets.tolist(), starts, length)
    assert split.document_ids(np.array(starts), length).tolist() == expected


def test_windows_that_leave_the_split_or_hold_nothing(data: PreparedData):
    split = data.split("train")
    assert split.document_ids(np.array([], dtype=np.int64), 8).shape == (0, 8)
    assert split.document_ids(np.array([3]), 0).shape == (1, 0)
    for start in (-1, split.tokens - 7):
        with pytest.raises(IndexError):
            split.document_ids(np.array([0, start]), 8)


def test_offsets_that_end_elsewhere_are_refused_when_read(data: PreparedData):
    path = data.folder / "train.offsets"
    offsets = np.fromfile(path, dtype="<i8")
    offsets[-1] += 1
    offsets.tofile(path)
    train = PreparedData.open(data.folder, verify=False).split("train")
    with pytest.raises(SlmError) as error:
        train.document_ids(np.array([0]), 8)
    assert error.value.code == "E_DATA_CORRUPT" and "train.offsets" in str(error.value)
