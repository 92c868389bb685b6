"""Bits per byte of a subject: the bytes are the text's, whatever the tokenizer; loss of text is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import write_model
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers

from ptbr_slm.bench.synthetic import random_weights
from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.eval.bits_measure import _record, by_windows, check_lossless, measure_bits, text_windows
from ptbr_slm.eval.bits_sources import HeldOutText, built_in_text, normalized, valid_text
from ptbr_slm.eval.subject import LocalSubject
from ptbr_slm.runtime.scoring import ContinuationScore
from ptbr_slm.storage.manifest import read_manifest
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.tokenizer.spelling import CHARACTER_OF
from ptbr_slm.train.config_file import from_values
from ptbr_slm.train.run import train


def text_of(*documents: str) -> HeldOutText:
    return HeldOutText(
        "t", "t.txt", documents, tuple(map(str, range(len(documents)))), len(documents), "linhas"
    )


def byte_tokenizer(*, pairs: bool) -> Tokenizer:
    """A token a byte; with `pairs`, also a token for each of some pairs of letters."""
    vocab = {"<|bos|>": 0, "<|eos|>": 1, **{CHARACTER_OF[byte]: 2 + byte for byte in range(256)}}
    merges = [("a", "r"), ("o", "s"), ("Ã", "£"), ("e", "s")] if pairs else []
    for left, right in merges:
        vocab[left + right] = len(vocab)
    library = Library(models.BPE(vocab, merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<|bos|>", "<|eos|>"])
    return Tokenizer(library)


def byte_surprise(byte: int) -> float:
    """Nats of a byte, whatever comes before it: one distribution, in both tokenizers."""
    return 1.0 + (byte % 7) / 3


def toy(tokenizer: Tokenizer):
    return lambda ids: np.array([-sum(map(byte_surprise, tokenizer.token_bytes(i))) for i in ids[1:]])


CONFIG = ModelConfig(
    vocab_size=300, hidden_size=16, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=16,
    intermediate_size=16, max_seq_len=64, bos_token_id=0, eos_token_ids=(1,),
)  # fmt: skip
TEXTS = st.lists(
    st.text(st.sampled_from("aãreosç \nçé€😀"), min_size=1).map(normalized).filter(bool),
    min_size=1,
    max_size=5,
)


@given(TEXTS, st.integers(2, 40), st.integers(2, 40))
@settings(max_examples=40, deadline=None)
def test_two_tokenizers_with_one_distribution_of_bytes_give_the_same_bits(documents, window, other):
    """Also where a token has a part of a character: `ã` is two bytes, of one token or of two."""
    text = text_of(*documents)
    found = []
    for pairs, seq_len in ((False, window), (True, other)):
        tokenizer = byte_tokenizer(pairs=pairs)
        found.append(by_windows(toy(tokenizer), tokenizer, CONFIG, text, seq_len))
    for one, two, document in zip(*found, documents, strict=True):
        expected = sum(map(byte_surprise, document.encode())) / math.log(2)
        assert one.bits == pytest.approx(expected, abs=1e-5) and two.bits == pytest.approx(expected, abs=1e-5)
        assert one.bytes == two.bytes == len(document.encode()) and one.sha256 == two.sha256


def sentencepiece(*, normalizer=None, fallback: bool = True) -> Tokenizer:
    """A unigram vocabulary as SentencePiece writes it, with `▁` and tokens for bytes."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
    pieces += [(f"<0x{byte:02X}>", -9.0) for byte in range(256)] if fallback else []
    pieces += [("▁", -2.0), ("▁o", -2.5), ("▁casa", -3.0), *((c, -4.0) for c in "abcdefghilmnopqrstuvã")]
    library = Library(models.Unigram(pieces, unk_id=0, byte_fallback=fallback))
    library.normalizer = normalizer
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()]
        if fallback
        else [decoders.Metaspace()]
    )
    library.add_special_tokens(["<s>", "</s>"])
    return Tokenizer(library)


@pytest.mark.parametrize("seq_len", [4, 16, 64])
def test_sentencepiece_and_its_byte_tokens_count_the_texts_bytes(seq_len):
    """The space that `▁` puts before a text is no byte of it; `é` and the emoji are several byte tokens."""
    documents = ("o gato é de casa", "a mãe 😀 não", "Ação")
    config = replace(CONFIG, bos_token_id=1, eos_token_ids=(2,))
    windows = text_windows(sentencepiece(), config, text_of(*documents), seq_len)
    found = np.bincount(windows.documents.ravel(), windows.target_bytes.ravel())
    assert found[: len(documents)].tolist() == [len(document.encode()) for document in documents]


@pytest.mark.parametrize(
    ("tokenizer", "says"),
    [
        (sentencepiece(normalizer=normalizers.Lowercase()), "«A» (1 x)"),
        (sentencepiece(normalizer=normalizers.NFKC()), "«½» (1 x)"),
        (sentencepiece(normalizer=normalizers.StripAccents()), "«ã»"),
        (sentencepiece(fallback=False), "«½» (1 x)"),
        (sentencepiece(normalizer=normalizers.Replace("  ", " ")), "« » (1 x)"),
    ],
)
def test_a_tokenizer_that_loses_text_is_refused_and_what_it_loses_is_shown(tokenizer, says):
    if "ã" in says:
        text = text_of("não", normalized("a mãe"))
        tokenizer = sentencepiece(
            normalizer=normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
        )
    else:
        text = text_of("a casa", "A casa  tem ½")
    with pytest.raises(SlmError) as caught:
        check_lossless(tokenizer, text)
    assert caught.value.code == "E_TOKENIZER_LOSSY" and says in caught.value.message
    assert "documentos não voltam" in caught.value.message


def test_what_training_printed_is_what_is_measured_on_its_valid_split(prepared, tmp_path):
    values = {
        "data": prepared, "output": tmp_path / "run", "model_size": "nano", "seq_len": 32, "batch_size": 2,
        "grad_accum": 1, "max_steps": 2, "device": "cpu", "evaluation.every": 0,
        "evaluation.tokens": 65_536, "evaluation.sample_tokens": 0,
    }  # fmt: skip
    result = train(from_values(values))
    with LocalSubject(result.model, "cpu") as subject:
        found = measure_bits(subject, valid_text(prepared), seq_len=32)
    known = read_manifest(result.model).extra
    assert found.value == pytest.approx(known["bits_per_byte"], rel=1e-5)
    assert (found.bytes, found.targets) == (known["held_out"]["bytes"], known["held_out"]["targets"])
    assert found.value in found.interval and found.seq_len == 32


class Server:
    """A subject that shows no tokens: a byte costs one nat, whatever comes before it."""

    name, identity, parameters, context = "servidor", "s", None, 64

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def score(self, requests):
        for prompt, (piece,) in requests:
            self.asked.append((prompt, piece))
            size = len(piece.encode())
            yield [ContinuationScore(-float(size), 1 + size // 4, size, False, 0)]

    def continue_text(self, prompts, until, max_new_tokens):
        raise AssertionError


@given(st.lists(st.text(st.sampled_from("ação \n"), min_size=1, max_size=400), min_size=1, max_size=3))
@settings(max_examples=50, deadline=None)
def test_a_servers_pieces_are_the_whole_text_but_its_first_word(texts):
    documents = [document for text in texts if len((document := normalized(text)).split()) > 1]
    if not documents:
        return
    server = Server()
    found = measure_bits(server, text_of(*documents), seq_len=16)
    assert "".join(piece for _, piece in server.asked) == "".join(d[len(d.split()[0]) :] for d in documents)
    assert found.value == pytest.approx(1 / math.log(2))
    assert found.bytes == sum(len(piece.encode()) for _, piece in server.asked)
    assert all(prompt and not prompt[0].isspace() for prompt, _ in server.asked)
    assert any("servidor" in note for note in found.notes)


def test_short_documents_and_samples_and_parts_are_told(tokenizer, tmp_path):
    config = replace(CONFIG, vocab_size=tokenizer.vocab_size)
    folder = write_model(tmp_path / "m", config, tokenizer, random_weights(config, 3))
    with LocalSubject(folder, "cpu") as subject:
        text = replace(text_of("O céu é azul.", "O mar é verde."), of=9)
        notes = measure_bits(subject, text).notes
        assert measure_bits(subject, built_in_text()).seq_len == 64
        pieces = measure_bits(subject, replace(text, of=1, ids=("0.0", "0.3")))
    assert notes[0] == "2 de 9 linhas, sorteados"
    assert "só o contexto curto" in notes[1] and "poucos para um intervalo" in notes[2]
    assert pieces.notes[0] == "2 trechos de 1 linhas, sorteados" and "um só documento" in pieces.notes[2]


def test_pieces_of_one_document_are_one_unit_of_the_interval(tokenizer):
    config = replace(CONFIG, vocab_size=tokenizer.vocab_size)
    text = replace(text_of("a b", "c d", "e f"), ids=("0.1", "0.2", "5"))
    found = by_windows(lambda ids: -np.ones(len(ids) - 1), tokenizer, config, text, 16)
    assert _record(text, found, 16, 8, ()).units == [0, 0, 1]


def test_a_model_that_gives_nan_is_refused(tokenizer):
    config = replace(CONFIG, vocab_size=tokenizer.vocab_size)
    with pytest.raises(SlmError) as caught:
        by_windows(lambda ids: np.full(len(ids) - 1, np.nan), tokenizer, config, text_of("O céu."), 16)
    assert caught.value.code == "E_MODEL_INVALID"
