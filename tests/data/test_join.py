"""Prepared folders joined into one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from prepared_texts import texts_of

from ptbr_slm.data.index import SPLITS
from ptbr_slm.data.join import join
from ptbr_slm.data.mixture import plan
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.recipe import SourceOptions
from ptbr_slm.data.records import GROUPS, has_records, read_records
from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import Tokenizer

Make = Callable[..., PreparedData]


@pytest.fixture
def make(tmp_path: Path, tokenizer: Tokenizer, prose: Callable[..., str]) -> Make:
    """make(name, numbers, preset, seed): a prepared folder of so many texts."""

    def made(name: str, numbers: range, preset: str = "none", seed: int = 0) -> PreparedData:
        folder = tmp_path / f"{name}-textos"
        folder.mkdir()
        for number in numbers:
            (folder / f"{number}.txt").write_text(prose(number), encoding="utf-8")
        (folder / "curto.txt").write_text("curto", encoding="utf-8")
        recipe = plan([folder], options=SourceOptions(preset=preset))
        return prepare(
            [], tmp_path / name, tokenizer, recipe=recipe, seed=seed, valid_fraction=0.2, shard_tokens=600
        )

    return made


def test_documents_stay_in_the_order_of_the_parts(make: Make, tmp_path: Path, tokenizer: Tokenizer):
    parts = [make("a", range(9)), make("b", range(20, 22)), make("c", range(30, 45))]
    joined = join([part.folder for part in parts], tmp_path / "dados")
    for name in SPLITS:
        assert texts_of(joined, name, tokenizer) == [
            text for part in parts for text in texts_of(part, name, tokenizer)
        ]
        assert joined.split(name).bytes == sum(part.split(name).bytes for part in parts)
    assert joined.index.dropped == {"too_short": 3}
    assert (joined.index.seed, joined.index.valid_fraction) == (0, 0.2)
    assert joined.index.near_duplicates == parts[0].index.near_duplicates
    shards = [shard.sha256 for part in parts for shard in part.index.splits["train"].shards]
    assert [shard.sha256 for shard in joined.index.splits["train"].shards] == shards
    names = [f"train-{number:05d}.bin" for number in range(len(shards))]
    assert sorted(path.name for path in joined.folder.glob("train-*.bin")) == names


def test_shards_are_links_where_the_disk_has_them(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    part = make("a", range(9))
    linked = join([part.folder], tmp_path / "ligados")
    assert linked.sha256 == part.sha256
    shard = part.folder / "train-00000.bin"
    assert shard.samefile(linked.folder / "train-00000.bin")

    def refused(*paths: object) -> None:
        raise OSError

    monkeypatch.setattr(os, "link", refused)
    copied = join([part.folder], tmp_path / "copiados")
    assert copied.sha256 == part.sha256
    assert not shard.samefile(copied.folder / "train-00000.bin")


def test_records_are_joined_where_all_parts_have_them(make: Make, tmp_path: Path):
    parts = [make("a", range(5), "curated"), make("b", range(20, 30), "curated")]
    joined = join([part.folder for part in parts], tmp_path / "dados")
    for group in GROUPS:
        expected = [record for part in parts for record in read_records(part.folder, group)]
        assert list(read_records(joined.folder, group)) == expected
    assert [source["documents"] for source in joined.index.recipe["sources"]] == [5, 10]
    plain = make("c", range(40, 44))
    assert not has_records(join([parts[0].folder, plain.folder], tmp_path / "outros").folder)


def test_what_the_parts_disagree_on_is_left_out(make: Make, tmp_path: Path):
    parts = [make("a", range(5)), make("b", range(20, 30), seed=4)]
    index = join([part.folder for part in parts], tmp_path / "dados").index
    assert (index.seed, index.valid_fraction, index.near_duplicates) == (0, 0.0, {})


def test_refusals(make: Make, tmp_path: Path, corpus: Path, prose: Callable[..., str]):
    part = make("a", range(9))
    other = prepare([corpus], tmp_path / "outro", Tokenizer.train([prose(1)], 300))

    def code(parts: list[Path], out: str) -> str:
        with pytest.raises(SlmError) as caught:
            join(parts, tmp_path / out)
        return caught.value.code

    assert code([], "dados") == "E_USAGE"
    assert code([part.folder, other.folder], "dados") == "E_TOKENIZER_MISMATCH"
    assert code([part.folder], corpus.name) == "E_EXISTS"
    assert code([tmp_path / "nada"], "dados") == "E_NOT_FOUND"
    shard = part.folder / "train-00000.bin"
    damaged = np.fromfile(shard, "<u2")
    damaged[3] ^= 1
    damaged.tofile(shard)
    assert code([part.folder], "dados") == "E_DATA_CORRUPT"
