"""What `--data` may name: prepared data, or texts, which are prepared once."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptbr_slm.data.pipeline import open_or_prepare
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import Tokenizer


def test_prepared_data_are_opened_as_they_are_with_or_without_their_tokenizer(
    data: PreparedData, tokenizer_file: Path, tmp_path: Path
):
    for path in (data.folder, data.folder / "train-00000.bin", data.folder / "index.json"):
        for tokenizer in (None, tokenizer_file, data.folder):
            assert open_or_prepare(path, tokenizer, tmp_path / "cache").sha256 == data.sha256
    assert not (tmp_path / "cache").exists()


def test_a_foreign_tokenizer_is_refused_with_the_right_one_in_the_hint(
    data: PreparedData, texts: list[str], tmp_path: Path
):
    (tmp_path / "outro.json").write_text(Tokenizer.train(texts, 300).to_json(), encoding="utf-8")
    with pytest.raises(SlmError) as error:
        open_or_prepare(data.folder, tmp_path / "outro.json", tmp_path / "cache")
    assert error.value.code == "E_TOKENIZER_MISMATCH"
    assert str(data.folder / "tokenizer.json") in error.value.hint


def test_texts_are_prepared_once_and_again_when_they_change(
    corpus: Path, tokenizer_file: Path, tmp_path: Path
):
    cache = tmp_path / "cache"
    first = open_or_prepare(corpus, tokenizer_file, cache)
    stamp = (first.folder / "index.json").stat().st_mtime_ns
    again = open_or_prepare(corpus, tokenizer_file, cache)
    assert again.folder == first.folder and (again.folder / "index.json").stat().st_mtime_ns == stamp
    (corpus / "novo.txt").write_text("Um documento novo chegou hoje.")
    changed = open_or_prepare(corpus, tokenizer_file, cache)
    assert changed.folder != first.folder and changed.sha256 != first.sha256


def test_a_damaged_cache_is_made_again(corpus: Path, tokenizer_file: Path, tmp_path: Path):
    first = open_or_prepare(corpus, tokenizer_file, tmp_path / "cache")
    (first.folder / "train-00000.bin").write_bytes(b"\0")
    assert open_or_prepare(corpus, tokenizer_file, tmp_path / "cache").sha256 == first.sha256
    (first.folder / "index.json").unlink()
    assert open_or_prepare(corpus, tokenizer_file, tmp_path / "cache").sha256 == first.sha256


def test_texts_without_a_tokenizer_say_what_to_type(corpus: Path, tmp_path: Path):
    with pytest.raises(SlmError) as error:
        open_or_prepare(corpus, None, tmp_path / "cache")
    assert error.value.code == "E_TOKENIZER_MISSING" and f"tokenizer train {corpus}" in error.value.hint
