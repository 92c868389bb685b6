"""The prepared folder: what is in it, how documents are parted, and what a failure leaves behind."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from prepared_texts import texts_of

from ptbr_slm.data import encode
from ptbr_slm.data.index import SPLITS
from ptbr_slm.data.ingest import PrepareProgress
from ptbr_slm.data.pipeline import prepare, read_documents
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import Tokenizer


def test_every_document_comes_back_letter_by_letter(corpus: Path, tmp_path: Path, tokenizer: Tokenizer):
    data = prepare([corpus], tmp_path / "dados", tokenizer, valid_fraction=0.1, shard_tokens=500)
    found = texts_of(data, "train", tokenizer) + texts_of(data, "valid", tokenizer)
    expected = [document.text for document in read_documents([corpus])]
    assert sorted(found) == sorted(expected)
    assert len(list(data.folder.glob("train-*.bin"))) > 3
    train, valid = data.split("train"), data.split("valid")
    assert train.documents + valid.documents == 40 and valid.documents >= 1
    assert train.bytes + valid.bytes == sum(len(text.encode()) for text in expected)
    assert train.words + valid.words == sum(len(text.split()) for text in expected)


def test_the_folder_has_what_the_design_says(corpus: Path, tmp_path: Path, tokenizer: Tokenizer):
    data = prepare([corpus], tmp_path / "dados", tokenizer)
    names = {path.name for path in data.folder.iterdir()}
    parts = {f"{part}{ending}" for part in ("train", "valid") for ending in ("-00000.bin", ".offsets")}
    assert names == {"index.json", "tokenizer.json", *parts}
    body = json.loads((data.folder / "index.json").read_text())
    assert body["dtype"] == "uint16" and body["tokenizer_sha256"] == tokenizer.sha256
    assert data.load_tokenizer().sha256 == tokenizer.sha256 and data.vocab_size == tokenizer.vocab_size
    assert all(len(shard["sha256"]) == 64 for shard in body["splits"]["train"]["shards"])


def test_the_same_input_gives_the_same_bytes(corpus: Path, tmp_path: Path, tokenizer: Tokenizer):
    one = prepare([corpus], tmp_path / "a", tokenizer)
    two = prepare([corpus], tmp_path / "b", tokenizer)
    assert one.sha256 == two.sha256
    assert all(path.read_bytes() == (two.folder / path.name).read_bytes() for path in one.folder.iterdir())
    other = prepare([corpus], tmp_path / "c", tokenizer, seed=1, valid_fraction=0.3)
    assert other.sha256 != one.sha256


def test_the_parts_do_not_depend_on_the_order_of_the_documents(
    tmp_path: Path, tokenizer: Tokenizer, prose: Callable[..., str]
):
    valid = []
    for order in range(3):
        lines = [json.dumps({"text": prose(i)}) for i in range(60)]
        random.Random(order).shuffle(lines)
        path = tmp_path / f"{order}.jsonl"
        path.write_text("\n".join(lines))
        data = prepare([path], tmp_path / f"dados{order}", tokenizer, valid_fraction=0.05)
        valid.append(sorted(texts_of(data, "valid", tokenizer)))
    assert valid[0] == valid[1] == valid[2] and valid[0]


def test_a_single_document_is_for_training(tmp_path: Path, tokenizer: Tokenizer, prose: Callable[..., str]):
    (tmp_path / "a.txt").write_text(prose(0))
    for fraction in (0.0, 0.01, 0.5):
        data = prepare([tmp_path / "a.txt"], tmp_path / "dados", tokenizer, valid_fraction=fraction)
        assert (data.split("train").documents, data.split("valid").documents) == (1, 0)
        assert data.split("valid").tokens == 0 and len(data.split("valid").read(0, 0)) == 0


def test_special_tokens_typed_in_a_text_stay_text(tmp_path: Path, tokenizer: Tokenizer):
    (tmp_path / "a.txt").write_text("Antes <|eos|> depois <|bos|> fim.")
    data = prepare([tmp_path / "a.txt"], tmp_path / "dados", tokenizer)
    assert texts_of(data, "train", tokenizer) == ["Antes <|eos|> depois <|bos|> fim."]


@pytest.mark.parametrize("content", [None, b"", b"\x00\x01binario", "ação".encode("latin-1"), b"umapalavra"])
def test_nothing_usable_is_one_clear_error_that_names_why(
    tmp_path: Path, tokenizer: Tokenizer, content: bytes | None
):
    folder = tmp_path / "textos"
    folder.mkdir()
    if content is not None:
        (folder / "a.txt").write_bytes(content)
    with pytest.raises(SlmError) as error:
        prepare([folder], tmp_path / "dados", tokenizer)
    assert error.value.code == "E_DATA_EMPTY"
    assert "1 ×" in str(error.value) or "nenhum arquivo" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["textos"]


@pytest.mark.parametrize("fraction", [-0.1, 0.6, float("nan")])
def test_a_fraction_out_of_range_is_refused(
    corpus: Path, tmp_path: Path, tokenizer: Tokenizer, fraction: float
):
    with pytest.raises(SlmError) as error:
        prepare([corpus], tmp_path / "dados", tokenizer, valid_fraction=fraction)
    assert error.value.code == "E_CONFIG"


def test_a_folder_that_is_not_prepared_data_is_never_replaced(
    corpus: Path, tmp_path: Path, tokenizer: Tokenizer
):
    with pytest.raises(SlmError) as error:
        prepare([corpus], corpus, tokenizer)
    assert error.value.code == "E_EXISTS" and len(list(corpus.glob("*.txt"))) == 40
    data = prepare([corpus], tmp_path / "dados", tokenizer)
    again = prepare([corpus], tmp_path / "dados", tokenizer, seed=5, valid_fraction=0.4)
    assert again.sha256 != data.sha256


def test_an_interruption_leaves_the_earlier_data_and_nothing_else(
    corpus: Path, tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    before = prepare([corpus], tmp_path / "dados", tokenizer).sha256

    def interrupted(now: PrepareProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([corpus], tmp_path / "dados", tokenizer, seed=9, progress=interrupted)
    assert PreparedData.open(tmp_path / "dados").sha256 == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dados", "textos"]


def test_a_full_disk_is_told_and_leaves_the_earlier_data(
    small_disk: Path, tmp_path: Path, tokenizer: Tokenizer, prose: Callable[..., str]
):
    (tmp_path / "pouco.txt").write_text(prose(0))
    before = prepare([tmp_path / "pouco.txt"], small_disk / "dados", tokenizer).sha256
    (tmp_path / "muito.txt").write_text("\n\n".join(prose(i, 100) for i in range(300)))
    with pytest.raises(SlmError) as error:
        prepare([tmp_path / "muito.txt"], small_disk / "dados", tokenizer, paragraph_documents=True)
    assert error.value.code == "E_DISK_FULL" and error.value.exit_code == 5
    assert PreparedData.open(small_disk / "dados").sha256 == before
    assert [path.name for path in small_disk.iterdir()] == ["dados"]


def test_a_read_only_folder_is_told(small_disk: Path, corpus: Path, tokenizer: Tokenizer):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(SlmError) as error:
        prepare([corpus], small_disk / "dados", tokenizer)
    assert error.value.code == "E_PERMISSION"


def test_progress_reaches_the_size_of_the_input(
    corpus: Path, tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 2_000)
    events: list[PrepareProgress] = []
    data = prepare([corpus], tmp_path / "dados", tokenizer, progress=events.append)
    read, written = [now.input_bytes for now in events], [now.tokens for now in events]
    assert read == sorted(read) and written == sorted(written)
    assert len(events) > 3 and written[-1] == sum(data.split(name).tokens for name in SPLITS)
    assert read[-1] == sum(path.stat().st_size for path in corpus.iterdir())
