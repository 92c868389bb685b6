"""A model folder that is opened once: each file read once, decided once, checked once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tiny_models import random_weights, write_model

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.storage import model_folder, weights
from ptbr_slm.storage.manifest import amend_manifest, read_manifest, sha256_file
from ptbr_slm.storage.model_folder import COMPANIONS, ModelFolder
from ptbr_slm.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer(texts) -> Tokenizer:
    return Tokenizer.train(texts * 4, 400)


@pytest.fixture(scope="session")
def config(tokenizer) -> ModelConfig:
    return ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1,
        head_dim=16, intermediate_size=48, max_seq_len=32,
    )  # fmt: skip


@pytest.fixture
def path(tmp_path, config, tokenizer) -> Path:
    return write_model(tmp_path / "modelo", config, tokenizer)


@pytest.fixture
def opened(monkeypatch) -> Counter[str]:
    """How often each file was read or hashed."""
    seen: Counter[str] = Counter()
    read = Path.read_bytes

    def read_bytes(file: Path) -> bytes:
        seen[file.name] += 1
        return read(file)

    def hash_of(file: Path) -> str:
        seen[file.name] += 1
        return sha256_file(file)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    monkeypatch.setattr(model_folder, "sha256_file", hash_of)
    return seen


def test_nothing_is_read_before_it_is_asked_for(path, opened):
    folder = ModelFolder(path)
    assert not opened
    assert folder.config.hidden_size == 32
    assert set(opened) == {"config.json", "generation_config.json"}


def test_each_file_is_read_once_whatever_is_asked_and_how_often(path, opened):
    folder = ModelFolder.open(path)
    for _ in range(2):
        folder.check()
        assert folder.config and folder.tokenizer and folder.companions and folder.sha256 and folder.weights
        assert folder.chat_template and folder.manifest
    assert set(opened.values()) == {1} and opened["model.safetensors"] == 1
    assert ModelFolder.of(folder) is folder and ModelFolder.of(path).path == path


def test_the_identity_is_of_configuration_tokenizer_and_weights(path):
    digest = hashlib.sha256()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        digest.update(f"{name} {sha256_file(path / name)}\n".encode())
    assert ModelFolder.open(path).sha256 == ModelFolder(path).sha256 == digest.hexdigest()


def test_the_heads_are_compared_once_an_opening(tmp_path, config, tokenizer, monkeypatch):
    stored = random_weights(config)
    stored["lm_head.weight"] = stored["model.embed_tokens.weight"] * np.float32(2)
    folder = ModelFolder(write_model(tmp_path / "m", config, tokenizer, stored))
    compared = []
    same = weights.WeightReader.same
    monkeypatch.setattr(
        weights.WeightReader, "same", lambda self, *names: compared.append(names) or same(self, *names)
    )
    assert [folder.config.tie_embeddings for _ in range(3)] == [False] * 3
    assert len(compared) == 1


def test_damage_is_found_by_check_and_only_there(path):
    with (path / "tokenizer.json").open("r+b") as file:
        file.write(b"[")
    assert ModelFolder(path).manifest is not None, "sizes agree"
    for code in ("E_MODEL_INVALID", "E_CHECKPOINT_CORRUPT"):
        with pytest.raises(SlmError, match="sha256") as caught:
            ModelFolder.open(path, code=code)
        assert caught.value.code == code


def test_a_folder_from_elsewhere_has_no_manifest_and_opens(path):
    (path / "manifest.json").unlink()
    folder = ModelFolder.open(path)
    assert folder.manifest is None and folder.config.num_layers == 1


def test_companions_are_those_that_are_there(path):
    (path / "tokenizer_config.json").unlink()
    (path / "chat_template.jinja").write_text("{{ x }}", encoding="utf-8-sig", newline="\r\n")
    folder = ModelFolder(path)
    assert list(folder.companions) == [name for name in COMPANIONS if (path / name).exists()]
    assert folder.chat_template == "{{ x }}"


def test_templates_have_names_and_files_count_before_the_configuration(path):
    settings = json.loads((path / "tokenizer_config.json").read_text())
    listed = [{"name": "default", "template": "a"}, {"name": "rag", "template": "b"}, {"name": "x"}, 3]
    (path / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": listed}))
    assert ModelFolder(path).chat_templates == {"default": "a", "rag": "b"}
    (path / "additional_chat_templates").mkdir()
    (path / "additional_chat_templates" / "rag.jinja").write_text("c")
    assert ModelFolder(path).chat_templates == {"default": "a", "rag": "c"}
    (path / "chat_template.jinja").write_text("d")
    folder = ModelFolder(path)
    assert folder.chat_templates == {"default": "d", "rag": "c"} and folder.chat_template == "d"
    assert folder.companions["additional_chat_templates/rag.jinja"] == b"c"


def test_a_missing_configuration_is_told_as_missing(tmp_path):
    (tmp_path / "m").mkdir()
    with pytest.raises(SlmError) as caught:
        _ = ModelFolder(tmp_path / "m").config
    assert caught.value.code == "E_NOT_FOUND"


def test_a_manifest_is_amended_and_still_agrees(path):
    amend_manifest(path, bits_per_byte=1.5)
    assert read_manifest(path).extra["bits_per_byte"] == 1.5
    assert json.loads((path / "manifest.json").read_bytes())["kind"] == "model"
