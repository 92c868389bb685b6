"""Data prepared in parts and joined are the data prepared at once."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from page_text import PAGE
from planted_copies import random_text

from ptbr_slm.data.document import Skipped
from ptbr_slm.data.index import SPLITS
from ptbr_slm.data.join import join
from ptbr_slm.data.mixture import plan
from ptbr_slm.data.parts import choose_parts, files_of_part, part_writer, tokenize_part
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.process import outcomes
from ptbr_slm.data.read.files import list_files
from ptbr_slm.data.read.reader import read_file
from ptbr_slm.data.recipe import Recipe, SourceOptions
from ptbr_slm.data.records import GROUPS, read_records
from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import Tokenizer


@pytest.fixture
def mixed_texts(tmp_path: Path, prose: Callable[..., str]) -> Path:
    """Files with exact and near copies in other files, a long document, and what cannot be read."""
    folder = tmp_path / "textos"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number:02d}.txt").write_text(prose(number, 12), encoding="utf-8")
    (folder / "w.txt").write_text(f"{PAGE}\nUma frase a mais.", encoding="utf-8")
    (folder / "copia.txt").write_text(prose(3, 12), encoding="utf-8")
    (folder / "latin.txt").write_bytes("é assim".encode("latin-1"))
    (folder / "foto.pdf").write_bytes(b"%PDF")
    lines = [json.dumps({"text": prose(100 + i, 8), "id": str(i), "license": "CC0"}) for i in range(20)]
    lines += ["{quebrado", json.dumps({"text": "curto"}), json.dumps({"text": PAGE})]
    lines += [json.dumps({"text": "ele nÃ£o veio Ã  escola ontem, e nÃ£o disse nada a ninguÃ©m."})]
    (folder / "linhas.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def in_parts(
    recipe: Recipe, work: Path, tokenizer: Tokenizer, parts: int, valid_fraction: float, seed: int = 0
) -> PreparedData:
    source = recipe.sources[0]
    files = list(list_files(source.inputs))
    read, made = [work / f"read-{i}" for i in range(parts)], [work / f"made-{i}" for i in range(parts)]
    for number, path in enumerate(read):
        with part_writer(path, recipe, seed) as writer:
            for file in files_of_part(files, number, parts):
                for found in [file] if isinstance(file, Skipped) else read_file(file):
                    if isinstance(found, Skipped):
                        writer.skip(found)
                        continue
                    for outcome in outcomes(source.stages, found):
                        if outcome.dropped is None:
                            writer.keep(outcome.document)
                        else:
                            writer.drop(outcome.document, outcome.dropped, outcome.stage)
    choose_parts(read, work / "choice", recipe, valid_fraction)
    for number, (path, out) in enumerate(zip(read, made, strict=True)):
        tokenize_part(path, number, work / "choice", out, tokenizer, recipe, seed=seed, shard_tokens=900)
    return join(made, work / "dados")


def assert_same(found: PreparedData, expected: PreparedData) -> None:
    for name in SPLITS:
        ours, theirs = found.split(name), expected.split(name)
        assert (ours.documents, ours.bytes, ours.words) == (theirs.documents, theirs.bytes, theirs.words)
        assert np.array_equal(ours.document_offsets(), theirs.document_offsets())
        assert np.array_equal(ours.read(0, ours.tokens), theirs.read(0, theirs.tokens))
    for group in GROUPS:
        assert list(read_records(found.folder, group)) == list(read_records(expected.folder, group))
    for key in ("sources", "licences", "varieties", "excessive_rules"):
        assert found.index.recipe.get(key) == expected.index.recipe.get(key)
    without = {"recipe": {}, "splits": {}}
    assert replace(found.index, **without) == replace(expected.index, **without)


@pytest.mark.parametrize(
    ("parts", "preset", "drop_near_duplicates"),
    [(1, "curated", False), (3, "web", True), (3, "web", False), (25, "curated", True)],
)
def test_the_result_is_that_of_prepare(
    mixed_texts: Path,
    tmp_path: Path,
    tokenizer: Tokenizer,
    parts: int,
    preset: str,
    drop_near_duplicates: bool,
):
    recipe = plan(
        [mixed_texts],
        options=SourceOptions(preset=preset, variety="br"),
        drop_near_duplicates=drop_near_duplicates,
    )
    expected = prepare([], tmp_path / "uma", tokenizer, recipe=recipe, valid_fraction=0.2)
    found = in_parts(recipe, tmp_path / "partes", tokenizer, parts, 0.2)
    assert_same(found, expected)
    dropped = expected.index.dropped
    assert dropped["duplicate"] == dropped["not_utf8"] == dropped["unknown_format"] == 1
    assert dropped.get("near_duplicate", 0) == drop_near_duplicates
    assert expected.index.repaired["mojibake"] == 1


def test_the_end_of_a_long_document_is_held_out(tmp_path: Path, tokenizer: Tokenizer):
    folder = tmp_path / "textos"
    folder.mkdir()
    pick = random.Random(2)
    paragraphs = [random_text(pick, 60).capitalize() + "." for _ in range(90)]
    (folder / "livro.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    (folder / "bilhete.txt").write_text(random_text(pick, 10), encoding="utf-8")
    recipe = plan([folder], options=SourceOptions(preset="curated"))
    expected = prepare([], tmp_path / "uma", tokenizer, recipe=recipe, valid_fraction=0.1)
    assert expected.index.repaired["end_held_out"] == 1
    assert_same(in_parts(recipe, tmp_path / "partes", tokenizer, 2, 0.1), expected)


def test_another_seed_holds_out_other_documents(mixed_texts: Path, tmp_path: Path, tokenizer: Tokenizer):
    recipe = replace(plan([mixed_texts], options=SourceOptions(preset="curated")), near_duplicates=None)
    expected = prepare([], tmp_path / "uma", tokenizer, recipe=recipe, valid_fraction=0.2, seed=9)
    assert_same(in_parts(recipe, tmp_path / "partes", tokenizer, 3, 0.2, seed=9), expected)


def test_files_are_divided_by_size_and_stay_in_order(mixed_texts: Path):
    files = list(list_files([mixed_texts]))
    for parts in (1, 3, 7, 100):
        divided = [list(files_of_part(files, part, parts)) for part in range(parts)]
        assert [file for part in divided for file in part] == files
    assert [len(part) for part in divided].count(0) > 50


def test_a_part_is_there_whole_or_not_at_all(tmp_path: Path, tokenizer: Tokenizer):
    recipe = plan([tmp_path], options=SourceOptions(preset="curated"))
    with pytest.raises(RuntimeError), part_writer(tmp_path / "parte", recipe, 0) as writer:
        writer.skip(Skipped("not_utf8", "a.txt"))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_no_document_in_any_part(tmp_path: Path):
    recipe = plan([tmp_path], options=SourceOptions(preset="curated"))
    with part_writer(tmp_path / "parte", recipe, 0):
        pass
    with pytest.raises(SlmError) as caught:
        choose_parts([tmp_path / "parte"], tmp_path / "choice", recipe, 0.1)
    assert caught.value.code == "E_DATA_EMPTY"


def test_weights_are_refused(tmp_path: Path):
    recipe = plan([tmp_path])
    weighted = replace(recipe, sources=(replace(recipe.sources[0], weight=2.0),))
    for wrong in (weighted, replace(recipe, repeat_copies=True), replace(recipe, sources=recipe.sources * 2)):
        with pytest.raises(SlmError) as caught, part_writer(tmp_path / "parte", wrong, 0):
            pass
        assert caught.value.code == "E_USAGE"
