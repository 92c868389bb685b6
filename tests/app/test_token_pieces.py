"""Tokens spelled for people: characters that several tokens share, alternatives, marks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.app.token_pieces import BYTES, SPECIAL, TEXT, TokenPieces, pending_bytes, spelled
from ptbr_slm.runtime.results import TokenLogprob
from ptbr_slm.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(texts: list[str]) -> Tokenizer:
    return Tokenizer.train(texts * 3, 300)


def pieces_of(tokenizer: Tokenizer, ids: list[int]) -> list[dict]:
    speller = TokenPieces(tokenizer)
    return [piece for token in ids for piece in speller.push(token)] + speller.finish()


def one_byte(tokenizer: Tokenizer, byte: int) -> int:
    return next(i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) == bytes([byte]))


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.sampled_from("abç ãé\n🙂🇧🇷漢"), max_size=25))
def test_the_pieces_that_are_text_joined_are_the_text(tokenizer, text):
    ids = tokenizer.encode(text)
    pieces = pieces_of(tokenizer, ids)
    assert [piece["id"] for piece in pieces] == ids
    assert "".join(piece["text"] for piece in pieces if piece["kind"] == TEXT) == tokenizer.decode(ids)
    assert sum(piece["bytes"] for piece in pieces) == len(tokenizer.decode(ids).encode())


def test_a_character_stands_in_the_token_that_begins_it_and_comes_once_it_is_whole(tokenizer):
    ids = [one_byte(tokenizer, byte) for byte in "é".encode()]
    speller = TokenPieces(tokenizer)
    assert speller.push(ids[0]) == []
    first, second = speller.push(ids[1])
    assert (first["text"], first["kind"]) == ("é", TEXT)
    assert (second["text"], second["kind"]) == ("‹A9›", BYTES)


def test_a_text_that_ends_within_a_character_shows_its_bytes(tokenizer):
    cut = [one_byte(tokenizer, byte) for byte in (0xC3, 0x61)]
    assert [(p["text"], p["kind"]) for p in pieces_of(tokenizer, cut[:1])] == [("‹C3›", BYTES)]
    assert [(p["text"], p["kind"]) for p in pieces_of(tokenizer, cut)] == [("‹C3›", BYTES), ("a", TEXT)]


def test_alternatives_are_spelled_as_the_text_would_have_gone_on(tokenizer):
    start, accent, tilde, a = (one_byte(tokenizer, byte) for byte in (0xC3, 0xA9, 0xA3, 0x61))
    speller = TokenPieces(tokenizer)
    speller.push(start, TokenLogprob(start, -1.0, ((start, -1.0), (a, -2.0)), 1))
    first, second = speller.push(
        accent, TokenLogprob(accent, -0.5, ((accent, -0.5), (tilde, -1.5), (a, -3.0)), 1)
    )
    assert first["top"] == [[start, -1.0, "‹C3›", BYTES], [a, -2.0, "a", TEXT]]
    assert second["top"] == [[accent, -0.5, "é", TEXT], [tilde, -1.5, "ã", TEXT], [a, -3.0, "a", TEXT]]


def test_marks_are_no_text_and_end_a_character(tokenizer):
    start, eos = one_byte(tokenizer, 0xC3), tokenizer.eos_id
    assert spelled(tokenizer, eos) == ("<|eos|>", SPECIAL)
    assert [p["text"] for p in pieces_of(tokenizer, [start, eos])] == ["‹C3›", "<|eos|>"]
    assert pending_bytes(tokenizer, [start]) == b"\xc3"
    assert pending_bytes(tokenizer, [start, eos]) == b""
