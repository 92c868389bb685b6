"""Shards: their number format, their ids, reading across them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from prepared_texts import texts_of

from ptbr_slm.data.pipeline import prepare, read_documents
from ptbr_slm.data.shards import SplitWriter
from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import Tokenizer


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


def test_a_vocabulary_above_65536_is_stored_in_32_bits(corpus: Path, tmp_path: Path, tokenizer: Tokenizer):
    body = json.loads(tokenizer.to_json())
    vocabulary = body["model"]["vocab"]
    vocabulary.update({f"qqq{i}": len(vocabulary) + i for i in range(66_000)})
    (tmp_path / "grande.json").write_text(json.dumps(body))
    large = Tokenizer.load(tmp_path / "grande.json")
    data = prepare([corpus], tmp_path / "dados", large)
    assert data.index.dtype == "uint32"
    assert sorted(texts_of(data, "train", large) + texts_of(data, "valid", large)) == sorted(
        document.text for document in read_documents([corpus])
    )


def test_an_id_beyond_the_vocabulary_is_refused_when_written(tmp_path: Path):
    with SplitWriter(tmp_path, "train", 10, 100) as writer, pytest.raises(SlmError) as error:
        writer.write(np.array([1, 10], dtype=np.uint32), text_bytes=1, words=1)
    assert error.value.code == "E_TOKENIZER_INVALID"
