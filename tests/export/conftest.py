"""Small Llama folders: tied and untied of ours, one of transformers in shards of bfloat16; a small disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_disk import mounted
from tiny_models import random_weights, write_model

from ptbr_slm.config import ModelConfig
from ptbr_slm.tokenizer import Tokenizer

TINY = ModelConfig(
    vocab_size=400,
    hidden_size=64,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    intermediate_size=96,
    max_seq_len=80,
)

MakeModel = Callable[..., Path]


@pytest.fixture(scope="session")
def tokenizer(texts) -> Tokenizer:
    return Tokenizer.train(texts * 4, 400)


@pytest.fixture(scope="session")
def make_model(tokenizer, tmp_path_factory) -> MakeModel:
    """Write a random model; its matrices are enlarged so that the next token is rarely a close call."""

    def make(*, seed: int = 5, **changes) -> Path:
        config = replace(TINY, **{"vocab_size": tokenizer.vocab_size, **changes})
        weights = random_weights(config, seed, scale=5)
        for name in weights:
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                weights[name] = np.linspace(0.5, 3, config.head_dim, dtype=np.float32)
        return write_model(tmp_path_factory.mktemp("model") / "modelo", config, tokenizer, weights)

    return make


@pytest.fixture(scope="session")
def tied(make_model) -> Path:
    return make_model()


@pytest.fixture(scope="session")
def untied(make_model) -> Path:
    return make_model(tie_embeddings=False)


@pytest.fixture(scope="session")
def normalised(make_model) -> Path:
    """With qk_norm: a Qwen3ForCausalLM, whose gains are not all ones."""
    return make_model(qk_norm=True)


@pytest.fixture(scope="session")
def foreign(tokenizer, tmp_path_factory) -> Path:
    """What transformers writes: bfloat16, an untied head, a norm that is not all ones, several shards."""
    import torch
    import transformers

    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=32,
        intermediate_size=96,
        max_position_embeddings=80,
        rope_theta=50_000.0,
        tie_word_embeddings=False,
        initializer_range=0.1,
    )
    model = transformers.LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    path = tmp_path_factory.mktemp("foreign") / "modelo"
    model.to(torch.bfloat16).save_pretrained(path, max_shard_size="100KB")
    (path / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    assert len(list(path.glob("*.safetensors"))) > 1
    return path


SENTENCES = [
    "Em 1.500 milhas de mar, só vento: 12°, névoa e sal — nada mais.",
    "— Você vem? — perguntou João, à porta; ninguém respondeu.",
]


@pytest.fixture(scope="session")
def sentencepiece(texts) -> Callable[..., Tokenizer]:
    """A BPE written SentencePiece's way: `<unk> <s> </s>`, 256 byte tokens, `▁`, in either dialect.

    dialect: `llama2` (a normalizer and a chain of decoders) or `metaspace`.
    """
    from tokenizers import Tokenizer as Inner
    from tokenizers import models, pre_tokenizers, trainers

    names = ["<unk>", "<s>", "</s>"]
    space = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    inner = Inner(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    inner.pre_tokenizer = space
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=[*names, *(f"<0x{i:02X}>" for i in range(256))], show_progress=False
    )
    inner.train_from_iterator([*texts, *SENTENCES] * 3, trainer)
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    dialects = {
        "llama2": {
            "normalizer": {
                "type": "Sequence",
                "normalizers": [
                    {"type": "Prepend", "prepend": "▁"},
                    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
                ],
            },
            "pre_tokenizer": None,
            "decoder": {
                "type": "Sequence",
                "decoders": [
                    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                    {"type": "ByteFallback"},
                    {"type": "Fuse"},
                    strip,
                ],
            },
        },
        "metaspace": {
            "pre_tokenizer": {
                "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False,
            },
            "decoder": {
                "type": "Sequence",
                "decoders": [
                    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                    {"type": "ByteFallback"},
                    {"type": "Fuse"},
                    strip,
                ],
            },
        },
    }  # fmt: skip
    first = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    processor = {
        "type": "TemplateProcessing",
        "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [first, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }

    def make(dialect: str = "llama2") -> Tokenizer:
        body = json.loads(inner.to_str()) | dialects[dialect] | {"post_processor": processor}
        body["added_tokens"] = [token for token in body["added_tokens"] if token["content"] in names]
        return Tokenizer(Inner.from_str(json.dumps(body)))

    return make


@pytest.fixture(scope="session")
def make_foreign(tmp_path_factory) -> Callable[..., Path]:
    """What transformers writes for a random LlamaForCausalLM, beside a tokenizer.json."""
    import torch
    import transformers

    def make(tokenizer: Tokenizer, *, dtype: str = "float32", shards: str = "5GB", **changes) -> Path:
        torch.manual_seed(11)
        config = transformers.LlamaConfig(
            **{
                "vocab_size": tokenizer.vocab_size,
                "hidden_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "intermediate_size": 96,
                "max_position_embeddings": 128,
                "initializer_range": 0.12,
                "tie_word_embeddings": False,
                "bos_token_id": 1,
                "eos_token_id": 2,
                **changes,
            }
        )
        path = tmp_path_factory.mktemp("foreign") / "modelo"
        model = transformers.LlamaForCausalLM(config).to(getattr(torch, dtype))
        model.save_pretrained(path, max_shard_size=shards)
        (path / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
        names = tokenizer.hf_config(128, bos=1, eos=2, pad=None)
        (path / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
        return path

    return make


@pytest.fixture
def copy_of(tmp_path) -> Callable[[Path], Path]:
    """A copy to damage."""

    def copy(path: Path) -> Path:
        return Path(shutil.copytree(path, tmp_path / f"copia-{path.name}"))

    return copy


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    with mounted(tmp_path / "disco", kib=128) as folder:
        yield folder
