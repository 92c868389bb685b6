"""Ids that are looked up are those that the tokenizers library gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.data import known_words
from ptbr_slm.data.encode import Encoder
from ptbr_slm.data.known_words import COVERED, KnownWords
from ptbr_slm.tokenizer import Tokenizer

PIECES = [
    *(
        "Olá",
        "não",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "12",
        "2024",
        "²½",
        ".",
        "...",
        " (",
        "'s",
        "'S",
        "'ll",
        "'LLa",
    ),
    *("'", "’s", "— é", "ª", "º", "_", "R$", "\xa0", "\xad", "ſ", "😀", "日本", "e\u0301", "\u2028", "\x1c"),
    *("<|eos|>", "<|"),
]


def known(tokenizer: Tokenizer) -> KnownWords:
    found = KnownWords.of(tokenizer)
    assert found is not None
    return found


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(COVERED, max_size=40), st.lists(st.sampled_from(PIECES), max_size=30).map("".join)))
def test_every_text_has_the_tokens_of_the_library(tokenizer: Tokenizer, text: str):
    [encoded] = Encoder(tokenizer).encode([text])
    assert encoded[1:-1].tolist() == tokenizer.encode(text, special=False)


def test_texts_with_other_characters_or_added_tokens_are_left_to_the_library(tokenizer: Tokenizer):
    words = known(tokenizer)
    assert words.covers("São Luís — “à beira-mar”, 10 % …\n")
    for text in ("olá 😀", "e\u0301", "\u2009", "'ſ", "diz <|eos|> e mais", "\x1c", "привет"):
        assert not words.covers(text), text


def test_the_memory_forgets_and_the_ids_stay_the_same(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(known_words, "MAX_PIECES", 3)
    words = known(tokenizer)
    for number in range(40):
        text = f"palavra número {number % 7} de outra frase{'s' * (number % 5)}"
        assert words.encode(text).tolist() == tokenizer.encode(text, special=False)
        assert len(words._ids) <= 3 + 12


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (["normalizer"], {"type": "NFKC"}),
        (["model", "dropout"], 0.1),
        (["pre_tokenizer", "pretokenizers", 0, "behavior"], "MergedWithNext"),
        (["pre_tokenizer", "pretokenizers", 1, "add_prefix_space"], True),
    ],
)
def test_a_tokenizer_that_encodes_in_another_way_has_no_memory(
    tokenizer: Tokenizer, where: list[str | int], value: object
):
    body = json.loads(tokenizer.to_json())
    place = body
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    changed = Tokenizer.from_json(json.dumps(body).encode(), Path("tokenizer.json"))
    assert KnownWords.of(changed) is None
