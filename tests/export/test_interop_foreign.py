"""Llama folders that transformers wrote: the same logits, text and bytes; or a clear refusal."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ptbr_slm_export import export_model

import ptbr_slm
from ptbr_slm.errors import SlmError
from ptbr_slm.eval.bits import EncodedText, held_out_windows
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.storage.weights import WeightReader
from ptbr_slm.tokenizer import Tokenizer

torch = pytest.importorskip("torch", reason="precisa do PyTorch: pip install 'ptbr-slm[train]'")
transformers = pytest.importorskip("transformers", reason="compara com transformers: ptbr-slm[dev]")

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 48,
}
SAMPLES = [
    "O rio corre devagar.",
    "ação",
    "dois  espaços\ne\tlinha",
    "☃ 🎉 gelo",
    "a☃",
    "",
]


def compare_logits(folder, kind=transformers.LlamaForCausalLM) -> None:
    """Ours in PyTorch and the fp32 export against transformers, over a text of random ids."""
    theirs = kind.from_pretrained(folder, dtype=torch.float32).eval()
    ids = np.random.default_rng(2).integers(3, theirs.config.vocab_size, 100).tolist()
    with torch.no_grad():
        wanted = theirs(torch.tensor([ids])).logits[0].numpy()
    export = folder.parent / "export"
    export_model(folder, export, precision="fp32", verify=False)
    for path in (folder, export):
        with ptbr_slm.load(path, device="cpu") as model:
            assert np.abs(model.logits(ids) - wanted).max() < 1e-4 * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "bfloat16", "shards": "60KB", "head_dim": 32},
        {"dtype": "float16", "tie_word_embeddings": True, "num_key_value_heads": 4},
        {"rope_parameters": LLAMA3},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}},
    ],
    ids=["bf16 in shards, wide heads", "fp16, tied", "llama3 rope", "linear rope"],
)
def test_a_folder_of_transformers_gives_its_logits(make_foreign, sentencepiece, changes):
    folder = make_foreign(sentencepiece(), **changes)
    assert ("shards" in changes) == (folder / "model.safetensors.index.json").exists()
    compare_logits(folder)


def test_a_qwen3_of_transformers_gives_its_logits(sentencepiece, tmp_path):
    torch.manual_seed(5)
    config = transformers.Qwen3Config(
        vocab_size=500, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=32, intermediate_size=96, max_position_embeddings=128, initializer_range=0.12,
    )  # fmt: skip
    model = transformers.Qwen3ForCausalLM(config)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.save_pretrained(tmp_path / "modelo")
    (tmp_path / "modelo" / "tokenizer.json").write_text(sentencepiece().to_json(), encoding="utf-8")
    compare_logits(tmp_path / "modelo", transformers.Qwen3ForCausalLM)


def test_a_folder_of_links_opens_as_the_hugging_face_cache_has_it(make_foreign, sentencepiece, tmp_path):
    folder = make_foreign(sentencepiece(), shards="60KB")
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = file.rename(tmp_path / "blobs" / f"{number:040x}")
        (tmp_path / "snapshot" / file.name).symlink_to(blob)
    compare_logits(tmp_path / "snapshot")


@pytest.mark.parametrize("kind", ["linear", "llama3"])
def test_a_config_of_transformers_4_means_the_same_rotations(make_foreign, sentencepiece, kind):
    rope = LLAMA3 if kind == "llama3" else {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}
    folder = make_foreign(sentencepiece(), rope_parameters=rope)
    new = ModelFolder(folder).config
    body = json.loads((folder / "config.json").read_text())
    older = {**body.pop("rope_parameters")}
    body |= {"rope_theta": older.pop("rope_theta"), "rope_scaling": older}
    if kind == "linear":
        older["type"] = older.pop("rope_type")
    (folder / "config.json").write_text(json.dumps(body))
    assert ModelFolder(folder).config == new and new.rope_scaling is not None


@pytest.mark.parametrize("rope", ["yarn", "dynamic", "longrope"])
def test_a_rope_that_we_do_not_compute_is_refused_by_name(make_foreign, sentencepiece, copy_of, rope, cli):
    folder = make_foreign(sentencepiece())
    body = json.loads((folder / "config.json").read_text())
    body["rope_parameters"] = {"rope_type": rope, "factor": 4.0, "rope_theta": 10_000.0}
    (folder / "config.json").write_text(json.dumps(body))
    with pytest.raises(SlmError, match=rope) as caught:
        _ = ModelFolder(folder).config
    assert caught.value.code == "E_MODEL_INVALID"


def test_a_missing_shard_is_named(make_foreign, sentencepiece):
    folder = make_foreign(sentencepiece(), shards="60KB")
    gone = sorted(folder.glob("model-*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(SlmError, match=gone.name):
        WeightReader(folder)


def test_the_end_tokens_are_those_of_generation_config(make_foreign, sentencepiece):
    folder = make_foreign(sentencepiece())
    assert ModelFolder(folder).config.eos_token_ids == (2,)
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    assert ModelFolder(folder).config.eos_token_ids == (2, 7)
    (folder / "generation_config.json").write_text('{"eos_token_id": "fim"}')
    with pytest.raises(SlmError, match="eos_token_id"):
        _ = ModelFolder(folder).config


@pytest.fixture(params=["llama2", "metaspace"])
def tokenizer(request, sentencepiece) -> Tokenizer:
    return sentencepiece(request.param)


@pytest.mark.parametrize("text", SAMPLES)
def test_ids_and_text_are_those_of_transformers(tokenizer, tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    ids = tokenizer.encode(text)
    assert ids == theirs(text).input_ids
    decoded = tokenizer.decode(ids)
    assert decoded == theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == text


def test_a_first_space_survives_where_the_tokenizer_keeps_it(sentencepiece):
    """A Metaspace marks no text that begins with a space, and so loses it: in transformers, too."""
    for dialect, text in (("llama2", " com espaço"), ("metaspace", "com espaço")):
        tokenizer = sentencepiece(dialect)
        assert tokenizer.decode(tokenizer.encode(" com espaço")) == text


@pytest.mark.parametrize("text", SAMPLES)
def test_text_comes_out_token_by_token_and_no_character_is_split(tokenizer, text):
    ids = tokenizer.encode(text)
    decoder = tokenizer.stream_decoder()
    pieces = [decoder.push(i) for i in ids] + [decoder.finish()]
    assert "".join(pieces) == text and not any("\ufffd" in piece for piece in pieces)


def test_a_continuation_keeps_its_first_space(tokenizer):
    whole = tokenizer.encode("O rio corre devagar")
    at = len(tokenizer.encode("O rio"))
    decoder = tokenizer.stream_decoder(continuation=True)
    assert "".join(decoder.push(i) for i in whole[at:]) + decoder.finish() == " corre devagar"


def test_byte_lengths_add_up_to_the_size_of_the_text(tokenizer):
    for text in SAMPLES:
        ids = np.array(tokenizer.encode(text))
        assert tokenizer.target_bytes(ids).sum() == len(text.encode())
    joined = np.array([i for text in SAMPLES for i in [*tokenizer.encode(text), 2]])
    assert tokenizer.target_bytes(joined).sum() == sum(len(text.encode()) for text in SAMPLES)


def test_bits_per_byte_does_not_count_the_space_that_marks_a_start(tokenizer):
    texts = ["ação", "O rio"]
    ids = np.array([i for text in texts for i in [*tokenizer.encode(text), 2]])
    measured = held_out_windows(EncodedText(ids), tokenizer, 64, 64)
    assert measured.bytes == sum(len(text.encode()) for text in texts)


def test_both_engines_write_what_transformers_generates(make_foreign, sentencepiece):
    tokenizer = sentencepiece()
    folder = make_foreign(tokenizer, initializer_range=0.2)
    theirs = transformers.LlamaForCausalLM.from_pretrained(folder).eval()
    prompt = "O rio corre"
    ids = tokenizer.encode(prompt)
    tokens = theirs.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False)[0, len(ids) :].tolist()
    export_model(folder, folder.parent / "export", precision="fp32")
    for path in (folder, folder.parent / "export"):
        with ptbr_slm.load(path, device="cpu") as model:
            result = model.generate_detailed(prompt, max_new_tokens=24, temperature=0.0)
            assert list(result.tokens) == tokens
    decoder = tokenizer.stream_decoder(continuation=True)
    assert result.text == "".join(decoder.push(i) for i in tokens if i != 2) + decoder.finish()


def test_training_goes_on_from_a_foreign_folder_and_keeps_its_tokenizer(
    make_foreign, sentencepiece, cli, texts, tmp_path
):
    tokenizer = sentencepiece()
    folder = make_foreign(tokenizer, rope_parameters=LLAMA3)
    (tmp_path / "textos.txt").write_text("\n\n".join(f"{i}. {text}" for i, text in enumerate(texts * 12)))
    cli("data", "prepare", "textos.txt", "-o", "dados", "--tokenizer", folder / "tokenizer.json", check=True)
    shown = cli("info", folder, check=True).stdout
    assert f"{tokenizer.vocab_size}" in shown
    done = cli(
        "train", "--data", "dados", "--output", "run", "--init-from", folder, "--max-steps", "2",
        "--seq-len", "32", "--batch-size", "1", "--set", "schedule.warmup_steps=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    final = ModelFolder(tmp_path / "run" / "final").config
    assert final.rope_scaling == ModelFolder(folder).config.rope_scaling
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path / "run" / "final")
    assert (opened.bos_token, opened.eos_token) == ("<s>", "</s>")
    assert opened("O rio ☃").input_ids == tokenizer.encode("O rio ☃")
