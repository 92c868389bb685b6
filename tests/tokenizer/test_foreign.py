"""Tokenizers of other projects: each kind of file opens, counts as its own library does, or is refused."""

from __future__ import annotations

import base64
import importlib.util
import io
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import LLAMA_BPE_SPLIT, Tokenizer
from ptbr_slm.tokenizer.foreign import looks_like_tokenizer, open_tokenizer

PROSE = [
    "A professora contou uma história na feira, e o pescador não viu o violão.",
    "Em São Luís, às 7h30 de 12/05/2024, a menina guardou R$ 1.250,00 e 3 pães de queijo!",
    "\n\n  Minha avó   esqueceu as chaves...\tE o padeiro? \U0001f600 ¿日本語?",
]


@pytest.fixture(scope="module")
def ranks(texts: list[str]) -> dict[bytes, int]:
    """Byte-pair ranks, as tiktoken has them: 256 bytes, then what our trainer has learnt."""
    trained = Tokenizer.train([*texts, *PROSE] * 3, 700)
    learnt = [trained.token_bytes(i) for i in range(trained.vocab_size) if i not in trained.special_ids]
    tokens = [bytes([byte]) for byte in range(256)] + [token for token in learnt if len(token) > 1]
    return {token: rank for rank, token in enumerate(tokens)}


def tekken(ranks: dict[bytes, int], pattern: str = LLAMA_BPE_SPLIT) -> str:
    vocab = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
        for token, rank in ranks.items()
    ]
    beyond = {"rank": len(ranks), "token_bytes": base64.b64encode(b"fora do uso").decode()}
    config = {
        "pattern": pattern,
        "num_vocab_tokens": len(ranks) + 1,
        "default_vocab_size": len(ranks) + 10,
        "default_num_special_tokens": 10,
        "version": "v3",
    }
    return json.dumps({"config": config, "vocab": [*vocab, beyond]})


def tiktoken_file(ranks: dict[bytes, int]) -> bytes:
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items())


def reference(ranks: dict[bytes, int], word: bytes) -> list[int]:
    """Byte-pair encoding as its paper has it: join the pair of the lowest rank, the leftmost first."""
    parts = [bytes([byte]) for byte in word]
    while True:
        joined = [
            (ranks[left + right], place)
            for place, (left, right) in enumerate(itertools.pairwise(parts))
            if left + right in ranks
        ]
        if not joined:
            return [ranks[part] for part in parts]
        place = min(joined)[1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


@pytest.fixture(scope="module")
def from_tekken(ranks: dict[bytes, int], tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("tekken")
    (folder / "tekken.json").write_text(tekken(ranks), encoding="utf-8")
    return open_tokenizer(folder)


def test_a_tekken_file_and_a_file_of_ranks_give_the_same_ids(ranks, from_tekken, tmp_path: Path):
    (tmp_path / "tokenizer.model").write_bytes(tiktoken_file(ranks))
    plain = open_tokenizer(tmp_path)
    assert plain.encode_batch(PROSE) == from_tekken.encode_batch(PROSE)
    assert (from_tekken.vocab_size, plain.vocab_size) == (len(ranks) + 10, len(ranks))
    assert from_tekken.unknown_id is None


def test_tokens_beyond_the_ordinary_ones_are_not_used(ranks, from_tekken):
    assert max(from_tekken.encode_batch(["fora do uso"])[0]) < len(ranks)


@settings(max_examples=300, deadline=None)
@given(word=st.text(st.sampled_from("aãeiorsnçtdmlh"), min_size=1, max_size=24))
def test_merges_made_of_ranks_encode_as_ranks_do(ranks, from_tekken, word: str):
    raw = word.encode()
    expected = [ranks[raw]] if raw in ranks else reference(ranks, raw)
    assert from_tekken.encode_batch([word]) == [expected]


def test_a_sentencepiece_model_counts_as_its_library_and_tells_what_it_cannot_spell(tmp_path: Path):
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(PROSE[:2] * 20), model_writer=model, vocab_size=50, minloglevel=2
    )
    file = tmp_path / "vocab.pten.spm"
    file.write_bytes(model.getvalue())
    opened = open_tokenizer(file)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    assert opened.encode_batch(PROSE) == [theirs.encode(text) for text in PROSE]
    assert opened.vocab_size == 50 and opened.unknown_id in opened.encode_batch(["日本語"])[0]


def test_a_tokenizer_json_opens_as_ours(texts, tmp_path: Path):
    ours = Tokenizer.train(texts * 3, 400)
    (tmp_path / "tokenizer.json").write_text(ours.to_json(), encoding="utf-8")
    opened = open_tokenizer(tmp_path)
    assert opened.encode_batch(PROSE) == ours.encode_batch(PROSE) and opened.unknown_id is None


def test_the_unknown_token_of_a_word_vocabulary_is_told(tmp_path: Path):
    body = {
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "casa": 1}, "unk_token": "[UNK]"},
        "pre_tokenizer": {"type": "Whitespace"},
        "added_tokens": [],
    }
    (tmp_path / "palavras.json").write_text(json.dumps(body), encoding="utf-8")
    opened = open_tokenizer(tmp_path / "palavras.json")
    assert opened.unknown_id == 0 and opened.encode_batch(["casa mesa"]) == [[1, 0]]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\x00\xff" * 50,
        b"um texto qualquer",
        b'{"vocab": [], "config": {}}',
        b'{"vocab": [{"rank": 0}], "config": {"pattern": "x"}}',
        b"YQ== 0\nYg== 1\n",
    ],
)
def test_what_is_no_tokenizer_is_refused_with_its_name(tmp_path: Path, content: bytes):
    if not content.startswith((b"{", b"YQ")) and importlib.util.find_spec("sentencepiece") is None:
        pytest.skip("precisa do sentencepiece")
    file = tmp_path / "estranho.model"
    file.write_bytes(content)
    with pytest.raises(SlmError) as caught:
        open_tokenizer(file)
    assert caught.value.code == "E_TOKENIZER_INVALID" and caught.value.where == str(file)


@pytest.mark.parametrize("pattern", ["(", r"(a|aa)+$|\w*\d"])
def test_a_pattern_that_is_broken_or_hangs_is_refused(ranks, tmp_path: Path, pattern: str):
    (tmp_path / "tekken.json").write_text(tekken(ranks, pattern), encoding="utf-8")
    with pytest.raises(SlmError) as caught:
        open_tokenizer(tmp_path)
    assert caught.value.code == "E_TOKENIZER_INVALID"


def test_a_file_that_is_not_there_is_missing(tmp_path: Path):
    with pytest.raises(SlmError) as caught:
        open_tokenizer(tmp_path / "nada.model")
    assert caught.value.code == "E_TOKENIZER_MISSING"


def test_names_of_tokenizers_are_not_those_of_texts():
    names = ["a/tokenizer.json", "x.model", "m.model.v3", "v.spm", "o200k.tiktoken"]
    assert all(looks_like_tokenizer(Path(name)) for name in names)
    assert not any(looks_like_tokenizer(Path(name)) for name in ["a.txt", "a.jsonl", "a.jsonl.gz", "pasta"])
