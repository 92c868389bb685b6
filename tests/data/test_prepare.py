"""The prepared folder: what is in it, how documents are parted, and what a failure leaves behind."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.data import split
from ptbr_slm.data.drops import DropCounts
from ptbr_slm.data.prepare import prepare
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.read import read_documents
from ptbr_slm.data.segments import may_cut, segments
from ptbr_slm.data.split import SeenTexts, Splitter, fingerprint
from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import Tokenizer


def texts_of(data: PreparedData, part: str, tokenizer: Tokenizer) -> list[str]:
    """Every document of a part, decoded; its bos and eos are checked on the way."""
    found = []
    for start, stop in pairwise(data.split(part).document_offsets().tolist()):
        ids = data.split(part).read(start, stop)
        assert (ids[0], ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
        found.append(tokenizer.decode(ids[1:-1].tolist()))
    return found


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


def test_reading_across_shards_equals_them_end_to_end(corpus: Path, tmp_path: Path, tokenizer: Tokenizer):
    data = prepare([corpus], tmp_path / "dados", tokenizer, shard_tokens=300)
    train = data.split("train")
    shards = sorted(data.folder.glob("train-*.bin"))
    whole = np.concatenate([np.fromfile(path, dtype="<u2") for path in shards]).astype(np.int64)
    assert len(whole) == train.tokens
    pick = random.Random(0)
    for _ in range(50):
        start = pick.randrange(train.tokens + 1)
        stop = pick.randint(start, train.tokens)
        row = train.read(start, stop)
        assert row.dtype == np.int64 and np.array_equal(row, whole[start:stop])
    with pytest.raises(IndexError):
        train.read(0, train.tokens + 1)


def test_the_folder_has_what_the_design_says(corpus: Path, tmp_path: Path, tokenizer: Tokenizer):
    data = prepare([corpus], tmp_path / "dados", tokenizer)
    names = {path.name for path in data.folder.iterdir()}
    parts = {f"{part}{ending}" for part in ("train", "valid") for ending in ("-00000.bin", ".offsets")}
    assert names == {"index.json", "tokenizer.json", *parts}
    body = json.loads((data.folder / "index.json").read_text())
    assert body["dtype"] == "uint16" and body["tokenizer_sha256"] == tokenizer.sha256
    assert data.load_tokenizer().sha256 == tokenizer.sha256 and data.vocab_size == tokenizer.vocab_size
    assert all(len(shard["sha256"]) == 64 for shard in body["splits"]["train"]["shards"])


def test_a_vocabulary_above_65536_is_stored_in_32_bits(corpus: Path, tmp_path: Path, tokenizer: Tokenizer):
    body = json.loads(tokenizer.to_json())
    vocabulary = body["model"]["vocab"]
    vocabulary.update({f"qqq{i}": len(vocabulary) + i for i in range(66_000)})
    (tmp_path / "grande.json").write_text(json.dumps(body))
    large = Tokenizer.load(tmp_path / "grande.json")
    data = prepare([corpus], tmp_path / "dados", large)
    assert data.index["dtype"] == "uint32"
    assert sorted(texts_of(data, "train", large) + texts_of(data, "valid", large)) == sorted(
        document.text for document in read_documents([corpus])
    )


def test_exact_copies_go_out_and_are_counted(corpus: Path, tmp_path: Path, tokenizer: Tokenizer):
    (corpus / "copia.txt").write_text((corpus / "07.txt").read_text() + "\r\n\r\n")
    (corpus / "copia.jsonl").write_text(json.dumps({"text": (corpus / "07.txt").read_text()}) + "\n")
    drops = DropCounts()
    data = prepare([corpus], tmp_path / "dados", tokenizer, drops=drops)
    assert data.split("train").documents + data.split("valid").documents == 40
    assert dict(drops.dropped) == {"duplicate": 2} == data.index["dropped"]


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


@settings(max_examples=80, deadline=None)
@given(
    st.sets(st.text("abcdef", min_size=1), min_size=2, max_size=12),
    st.sampled_from([0.001, 0.3, 0.5]),
    st.randoms(),
)
def test_two_documents_or_more_leave_no_part_empty_in_any_order(
    texts: set[str], fraction: float, shuffler: random.Random
):
    from ptbr_slm.data.read import Document

    def part(ordered: list[str]) -> dict[str, set[str]]:
        splitter = Splitter(fraction)
        parts: dict[str, set[str]] = {"train": set(), "valid": set()}
        for text in ordered:
            for name, document in splitter.assign(Document(text, ""), fingerprint(text, 0)[1]):
                parts[name].add(document.text)
        for name, document in splitter.finish():
            parts[name].add(document.text)
        return parts

    first = part(sorted(texts))
    shuffled = sorted(texts)
    shuffler.shuffle(shuffled)
    assert part(shuffled) == first
    assert first["train"] and first["valid"] and first["train"] | first["valid"] == texts


def test_a_single_document_is_for_training(tmp_path: Path, tokenizer: Tokenizer, prose: Callable[..., str]):
    (tmp_path / "a.txt").write_text(prose(0))
    for fraction in (0.0, 0.01, 0.5):
        data = prepare([tmp_path / "a.txt"], tmp_path / "dados", tokenizer, valid_fraction=fraction)
        assert (data.split("train").documents, data.split("valid").documents) == (1, 0)
        assert data.split("valid").tokens == 0 and len(data.split("valid").read(0, 0)) == 0


def test_a_set_of_fingerprints_agrees_with_a_set_and_stays_below_16_bytes_each(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(split, "_RECENT", 1_000)
    seen, known = SeenTexts(), set()
    pick = random.Random(3)
    for _ in range(60_000):
        identity = pick.getrandbits(15) * 0x9E3779B97F4A7C15 % 2**64
        assert seen.add(identity) == (identity not in known)
        known.add(identity)
    levels = [len(level) for level in seen._levels]
    assert sum(levels) > 26_000 and all(level.itemsize == 8 for level in seen._levels)
    assert all(a > b for a, b in pairwise(levels))  # merging holds at most all of them twice: 16 bytes each


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(["Olá", " ", "\n", "\n\n", "12", ".", "— é", "'s", "²", "R$", "ção", "🇧🇷", "\t"]),
        max_size=80,
    )
)
def test_cutting_a_long_text_never_changes_its_tokens(tokenizer: Tokenizer, pieces: list[str]):
    text = "".join(pieces)
    cut = segments(text, 5)
    assert "".join(cut) == text
    assert [i for ids in tokenizer.encode_batch(cut) for i in ids] == tokenizer.encode(text, special=False)


def test_only_tokenizers_that_split_like_ours_are_fed_in_pieces(tokenizer: Tokenizer, tmp_path: Path):
    assert may_cut(tokenizer)
    body = json.loads(tokenizer.to_json())
    body["normalizer"] = {"type": "Prepend", "prepend": "▁"}
    (tmp_path / "t.json").write_text(json.dumps(body))
    assert not may_cut(Tokenizer.load(tmp_path / "t.json"))


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

    def interrupted(done: float, status: str) -> None:
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


def test_progress_reaches_the_size_of_the_input(corpus: Path, tmp_path: Path, tokenizer: Tokenizer):
    seen: list[float] = []
    prepare([corpus], tmp_path / "dados", tokenizer, progress=lambda done, _: seen.append(done))
    assert seen == sorted(seen) and seen[-1] == sum(path.stat().st_size for path in corpus.iterdir())


def test_an_id_beyond_the_vocabulary_is_refused_when_written(tmp_path: Path):
    from ptbr_slm.data.shards import SplitWriter

    with SplitWriter(tmp_path, "train", 10, 100) as writer, pytest.raises(SlmError) as error:
        writer.write(np.array([1, 10], dtype=np.uint32), text_bytes=1, words=1)
    assert error.value.code == "E_TOKENIZER_INVALID"


def test_a_document_longer_than_a_batch_is_encoded_in_batches(
    tmp_path: Path, tokenizer: Tokenizer, prose: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    sizes: list[int] = []
    encode = Tokenizer.encode_batch

    def counted(self: Tokenizer, texts: list[str]) -> list[list[int]]:
        sizes.append(sum(map(len, texts)))
        return encode(self, texts)

    monkeypatch.setattr(Tokenizer, "encode_batch", counted)
    (tmp_path / "a.txt").write_text(prose(0, 20_000))
    data = prepare([tmp_path / "a.txt"], tmp_path / "dados", tokenizer)
    assert data.split("train").documents == 1
    assert len(sizes) > 2 and max(sizes) < 300_000
