"""Tokens of a text are the same however it is fed to the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.data.encode import can_be_segmented, segments
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.tokenizer import Tokenizer


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
    assert can_be_segmented(tokenizer)
    body = json.loads(tokenizer.to_json())
    body["normalizer"] = {"type": "Prepend", "prepend": "▁"}
    (tmp_path / "t.json").write_text(json.dumps(body))
    assert not can_be_segmented(Tokenizer.load(tmp_path / "t.json"))


def test_a_document_longer_than_a_batch_is_encoded_in_batches(
    tmp_path: Path, tokenizer: Tokenizer, prose: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    sizes: list[int] = []
    encode = Tokenizer.encode_batch

    def counted(self: Tokenizer, texts: list[str]) -> list[list[int]]:
        sizes.append(sum(map(len, texts)))
        return encode(self, texts)

    monkeypatch.setattr(Tokenizer, "encode_batch", counted)
    (tmp_path / "a.txt").write_text(prose(0, 20_000).replace(".", " ∴"))  # not a character that is looked up
    data = prepare([tmp_path / "a.txt"], tmp_path / "dados", tokenizer)
    assert data.split("train").documents == 1
    assert len(sizes) > 2 and max(sizes) < 300_000
