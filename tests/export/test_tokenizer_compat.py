"""A tokenizer that llama.cpp or onnxruntime-genai cannot follow is refused before any work, by its fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ptbr_slm_export import export_model
from ptbr_slm_export.gguf.file import export_gguf
from ptbr_slm_export.tokenizer_compat import incompatibility
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Inner

from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import LLAMA_BPE_SPLIT, Tokenizer

NAMES = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{i:02X}>" for i in range(256)]


def byte_level(texts, normalizer=None, **options) -> Tokenizer:
    inner = Inner(models.BPE())
    level = pre_tokenizers.ByteLevel(**{"add_prefix_space": False, "use_regex": False, **options})
    split = pre_tokenizers.Split(Regex(LLAMA_BPE_SPLIT), "isolated")
    inner.pre_tokenizer = level if options.get("use_regex") else pre_tokenizers.Sequence([split, level])
    if normalizer is not None:
        inner.normalizer = normalizer
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|a|>", "<|bos|>", "<|eos|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    inner.train_from_iterator(texts, trainer)
    return Tokenizer(inner)


def sentencepiece_of_whole_words(texts) -> Tokenizer:
    """As Llama 2's vocabulary: no piece has both letters and signs, digits stand alone."""
    inner = Inner(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    space = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    inner.normalizer = normalizers.Sequence(space)
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"▁?\p{L}+|\p{N}|[^\p{L}\p{N}]"), "isolated")
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=[*NAMES, *BYTES], show_progress=False)
    inner.train_from_iterator(texts, trainer)
    body = json.loads(inner.to_str()) | {"pre_tokenizer": None}
    body["added_tokens"] = body["added_tokens"][:3]
    undo = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    inner = Inner.from_str(json.dumps(body))
    inner.decoder = decoders.Sequence(undo)
    return Tokenizer(inner)


def changed(tokenizer: Tokenizer, **parts) -> Tokenizer:
    body = json.loads(tokenizer.to_json())
    model = body["model"] | parts.pop("model", {})
    return Tokenizer(Inner.from_str(json.dumps(body | parts | {"model": model})))


def refused(folder: Path, out: Path) -> list[SlmError]:
    """What both readers' exports answer; nothing is written."""
    errors = []
    for export in (
        lambda: export_gguf(folder, out / "m.gguf"),
        lambda: export_model(folder, out / "g", target="genai", precision="fp32", verify=False),
    ):
        with pytest.raises(SlmError) as caught:
            export()
        errors.append(caught.value)
    assert not (out / "m.gguf").exists() and not (out / "g").exists()
    assert [error.code for error in errors] == ["E_MODEL_INVALID"] * 2
    return errors


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ({"normalizer": normalizers.Lowercase()}, "Lowercase"),
        ({"normalizer": normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])}, "Strip"),
        ({"normalizer": normalizers.NFKC()}, "NFKC"),
        ({"add_prefix_space": True}, "add_prefix_space"),
        ({"add_prefix_space": True, "use_regex": True}, "add_prefix_space"),
    ],
    ids=["Lowercase", "NFD and StripAccents", "NFKC", "add_prefix_space", "GPT-2's, add_prefix_space"],
)  # fmt: skip
def test_a_byte_level_tokenizer_that_changes_the_text_is_refused_by_both(
    make_foreign, texts, tmp_path, fault, word
):
    folder = make_foreign(byte_level(texts, **fault))
    for error in refused(folder, tmp_path):
        assert word in error.message and "outros tokens" in error.message and "tokenizer.json" in error.where
    export_model(folder, tmp_path / "cpu", precision="fp32", verify=False)  # ours follows any


def test_a_sentencepiece_vocabulary_without_byte_tokens_is_refused_by_both(
    make_foreign, sentencepiece, tmp_path
):
    body = json.loads(sentencepiece("metaspace").to_json())
    vocabulary = {name: i for name, i in body["model"]["vocab"].items() if not name.startswith("<0x")}
    numbered = {name: at for at, name in enumerate(vocabulary)}
    folder = make_foreign(changed(sentencepiece("metaspace"), model={"vocab": numbered}))
    for error in refused(folder, tmp_path):
        assert "bytes" in error.message


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ({"normalizer": {"type": "NFKC"}}, "NFKC"),
        ({"normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}}, "Replace"),
        ({"model": {"byte_fallback": False}}, "bytes"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "separa"),
        ({"pre_tokenizer": None}, "espaços"),
    ],
)
def test_sentencepieces_rules_and_no_others_are_taken(sentencepiece, parts, word):
    assert incompatibility(sentencepiece("metaspace")) == incompatibility(sentencepiece("llama2")) == ""
    assert word in incompatibility(changed(sentencepiece("metaspace"), **parts))


def test_what_both_follow_goes_to_both(make_foreign, texts, tmp_path):
    for at, normalizer in enumerate((None, normalizers.NFC())):
        folder = make_foreign(byte_level(texts, normalizer), pad_token_id=0)
        export_gguf(folder, tmp_path / f"{at}.gguf")
        export_model(folder, tmp_path / f"{at}", target="genai", precision="fp32", verify=False)


def test_genai_is_asked_whether_it_follows_a_sentencepiece_vocabulary(
    make_foreign, sentencepiece, texts, tmp_path
):
    pytest.importorskip("onnxruntime_genai", reason="pergunta ao onnxruntime-genai: ptbr-slm[dev]")
    folder = make_foreign(sentencepiece_of_whole_words(texts), pad_token_id=0)
    export_model(folder, tmp_path / "g", target="genai", precision="fp32", verify=False)
    joined = make_foreign(sentencepiece())  # its pieces join words and signs: "pedras,"
    with pytest.raises(SlmError, match="sai diferente") as caught:
        export_model(joined, tmp_path / "x", target="genai", precision="fp32", verify=False)
    assert "--target cpu" in caught.value.hint and not (tmp_path / "x").exists()


def test_without_genai_to_ask_a_sentencepiece_vocabulary_waits_for_it(
    make_foreign, sentencepiece, tmp_path, monkeypatch
):
    monkeypatch.setattr("ptbr_slm_export.genai.config.importlib.util.find_spec", lambda name: None)
    with pytest.raises(SlmError) as caught:
        export_model(make_foreign(sentencepiece()), tmp_path / "x", target="genai", verify=False)
    assert caught.value.code == "E_DEPENDENCY" and "onnxruntime-genai" in caught.value.hint
