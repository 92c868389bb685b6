"""The texts that are read back from the working folder are those that came, whatever the tokenizer does."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from ptbr_slm.data.document import DocumentCounts
from ptbr_slm.data.encode import Encoder
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.data.process import Kept
from ptbr_slm.data.recipe import Recipe, Source
from ptbr_slm.data.staging import Staging
from ptbr_slm.tokenizer import Tokenizer

_PROSE = ["A professora contou uma história na feira, e o pescador não viu.", "Ação, pão e café às 7h!"]
_SPECIAL = ["<unk>", "<s>", "</s>"]
_MARKED = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
_SPACES = decoders.Sequence(
    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
)
PIECES = [
    "Olá",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t",
    "12",
    "ção",
    "ﬁ",
    "½",
    "①",
    "Ａ",
    "日本",
    "😀",
    "▁",
    "<s>",
    "é",
]
PIECES += ["é", " ", "<|eos|>", "<0x41>", "x"]


@lru_cache
def tokenizer_of(kind: str) -> Tokenizer:
    """`ours`, or one as SentencePiece's converters write them, with what each loses."""
    if kind == "ours":
        return Tokenizer.train([*_PROSE, *PIECES], 400)
    byte_fallback = kind != "no bytes"
    library = Library(models.BPE(unk_token="<unk>", byte_fallback=byte_fallback, fuse_unk=True))
    library.normalizer = _MARKED
    if kind == "first space":  # decode takes away a first space that was the text's own
        library.normalizer, library.pre_tokenizer = None, pre_tokenizers.Metaspace(prepend_scheme="first")
    if kind == "nfkc":
        library.normalizer = normalizers.Sequence([normalizers.NFKC(), _MARKED])
    if kind == "lower case":
        library.normalizer = normalizers.Sequence([normalizers.Lowercase(), _MARKED])
    spelled_bytes = [f"<0x{byte:02X}>" for byte in range(256)] if byte_fallback else []
    library.train_from_iterator(
        _PROSE, trainers.BpeTrainer(vocab_size=500, special_tokens=[*_SPECIAL, *spelled_bytes])
    )
    library.decoder = _SPACES
    body = json.loads(library.to_str())
    body["added_tokens"] = [token for token in body["added_tokens"] if token["content"] in _SPECIAL]
    return Tokenizer.from_json(json.dumps(body).encode(), Path("tokenizer.json"))


KINDS = ["ours", "llama", "first space", "nfkc", "lower case", "no bytes"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=st.lists(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), max_size=6))
def test_the_text_staged_is_the_text_that_came(tmp_path: Path, kind: str, documents: list[str]):
    encoder = Encoder(tokenizer_of(kind))
    with Staging.open(tmp_path / "dados", kind, np.dtype("uint16")) as staging:
        for text, tokens in zip(documents, encoder.encode(documents), strict=True):
            spelled = encoder.spells(text, tokens)
            assert spelled == (encoder.text_of(tokens) == text)
            staging.add(Kept(tokens, len(text.encode()), 0, 0, 0.0, "" if spelled else text), 0)
        text_of = staging.texts(encoder)
        assert [text_of(number) for number in range(len(documents))] == documents


def test_ours_needs_no_decoding_to_know_that_it_spells_everything(monkeypatch: pytest.MonkeyPatch):
    encoder = Encoder(tokenizer_of("ours"))
    (tokens,) = encoder.encode(["Olá, 日本 <s> ▁"])
    monkeypatch.setattr(Tokenizer, "decode", None)
    assert encoder.spells("Olá, 日本 <s> ▁", tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_is_counted_and_a_cut_document_keeps_its_letters(
    tmp_path: Path, prose: Callable[..., str], kind: str
):
    """One long document, whose end is held out: both halves are tokens of the text that came."""
    text = "\n".join(f"{prose(number)} Ｎº {number} ½ ﬁm" for number in range(60))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    tokenizer, counts = tokenizer_of(kind), DocumentCounts()
    recipe = Recipe((Source((tmp_path / "a.txt",)),))
    data = prepare([], tmp_path / "dados", tokenizer, recipe=recipe, valid_fraction=0.2, counts=counts)
    splits = data.index.splits
    assert splits["valid"].documents == splits["train"].documents == 1
    halves = splits["train"].bytes + splits["valid"].bytes
    cleaned = prepare([tmp_path / "a.txt"], tmp_path / "todo", tokenizer, valid_fraction=0.0).index.splits
    assert cleaned["train"].bytes - 2 <= halves <= cleaned["train"].bytes  # the line end where it was cut
    assert counts.repaired["not_spelled"] == (kind not in ("ours", "llama", "first space"))
