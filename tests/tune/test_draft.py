"""The draft layer's training: it learns to guess its model, again the same, from data of that model only."""

from __future__ import annotations

import json

import numpy as np
import pytest
from refusals import refusal
from tiny_models import random_weights, write_model

from ptbr_slm.config import ModelConfig
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.storage.draft_folder import DraftFolder, draft_of
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.tune import draft
from ptbr_slm.tune.draft import DraftSettings, likeliest_tokens, train_draft


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    monkeypatch.setattr(draft, "TOKENS_PER_STEP", 512)


@pytest.fixture(scope="module")
def tokenizer(texts):
    return Tokenizer.train(texts * 4, 384)


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory):
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        head_dim=32,
        intermediate_size=96,
        max_seq_len=64,
    )
    weights = random_weights(config, scale=3)
    return write_model(tmp_path_factory.mktemp("draft") / "modelo", config, tokenizer, weights)


@pytest.fixture(scope="module")
def data(texts, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("draft-data")
    (folder / "textos.txt").write_text("\n".join(texts * 40), encoding="utf-8")
    prepare([folder / "textos.txt"], folder / "dados", tokenizer, valid_fraction=0.0)
    return folder / "dados"


def test_guesses_come_true_that_did_not_before(model, data, tmp_path):
    told = []
    settings = DraftSettings(max_steps=60, head_tokens=300)
    report = train_draft(
        model, data, tmp_path / "d", settings, progress=lambda done, status: told.append(done)
    )
    untrained = train_draft(model, data, tmp_path / "u", DraftSettings(max_steps=1, head_tokens=300))
    assert report.acceptance > max(0.5, untrained.acceptance + 0.2)
    assert report.steps == 60 == len(told) and report.held_out >= 63
    assert report.tokens == 60 * 512 and 0.9 < report.coverage <= 1
    facts = DraftFolder(tmp_path / "d").facts
    assert facts["acceptance"] == report.acceptance and facts["model_sha256"] == ModelFolder(model).sha256


def test_the_same_seed_gives_the_same_layer_and_another_seed_another(model, data, tmp_path):
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_draft(model, data, tmp_path / name, DraftSettings(max_steps=3, head_tokens=200, seed=seed))
        layer = DraftFolder(tmp_path / name)
        found.append(layer.read("fuse", layer.config.shapes["fuse"]))
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])


def test_minutes_end_a_training(model, data, tmp_path):
    report = train_draft(model, data, tmp_path / "d", DraftSettings(minutes=0.01))
    assert report.steps >= 1 and report.seconds < 30
    assert DraftFolder(tmp_path / "d").config.head_tokens == report.head_tokens < 384
    assert 0.9 <= report.coverage < 0.92


def test_data_of_another_tokenizer_are_refused(model, texts, tmp_path):
    (tmp_path / "t.txt").write_text("\n".join(texts * 20), encoding="utf-8")
    prepare([tmp_path / "t.txt"], tmp_path / "dados", Tokenizer.train(texts, 330), valid_fraction=0.0)
    error = refusal(train_draft, model, tmp_path / "dados", tmp_path / "d")
    assert error.code == "E_TOKENIZER_MISMATCH" and "data prepare" in error.hint
    assert not (tmp_path / "d").exists()


def test_too_little_text_and_a_foreign_folder_are_refused(model, tokenizer, data, tmp_path):
    (tmp_path / "t.txt").write_text("Pouco texto.", encoding="utf-8")
    prepare([tmp_path / "t.txt"], tmp_path / "dados", tokenizer, valid_fraction=0.0)
    assert refusal(train_draft, model, tmp_path / "dados", tmp_path / "d").code == "E_DATA_TOO_SMALL"
    (tmp_path / "minha").mkdir()
    (tmp_path / "minha" / "tese.txt").write_text("meu", encoding="utf-8")
    assert refusal(train_draft, model, data, tmp_path / "minha").code == "E_EXISTS"


def test_the_command_writes_into_the_model_and_takes_plain_text(run, model, texts, tmp_path):
    (tmp_path / "t.txt").write_text("\n".join(texts * 40), encoding="utf-8")
    done = run(
        "draft", model, "--data", tmp_path / "t.txt", "--max-steps", "2", "--head-tokens", "200", "--json"
    )
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    assert body["steps"] == 2 and body["folder"] == str(model / "draft")
    found = draft_of(ModelFolder(model))
    assert found is not None and found.config.head_tokens == 200
    assert run("draft", model, "--data", tmp_path / "t.txt", "--minutes", "0").returncode == 2


def test_the_likeliest_tokens_are_those_that_occur_most(data):
    from ptbr_slm.data.prepared import PreparedData

    split = PreparedData.open(data).split("train")
    ids, coverage = likeliest_tokens(split, 384, 50)
    counts = np.bincount(split.read(0, split.tokens), minlength=384)
    assert np.all(np.diff(ids) > 0) and len(ids) == 50
    assert counts[ids].min() >= np.delete(counts, ids).max()
    assert coverage == pytest.approx(counts[ids].sum() / counts.sum())
