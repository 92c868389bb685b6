"""`info`: sizes, the memory table, and what it finds in folders."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import write_model

from ptbr_slm.cli.plan_tables import Plan
from ptbr_slm.config import SIZES, model_config
from ptbr_slm.errors import Exit
from ptbr_slm.storage.manifest import write_manifest
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.planning.memory import GIB, T4_BYTES, estimate
from ptbr_slm.train.planning.recommend import fit
from ptbr_slm.train.planning.speed import flops_per_token


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """A nano model with random weights, as `train` would leave in final/."""
    pytest.importorskip("torch", reason="falta o torch: pip install 'ptbr-slm[train]'")
    tokenizer = Tokenizer.train(texts, vocab_size=300)
    config = model_config("nano", vocab_size=tokenizer.vocab_size, max_seq_len=64)
    return write_model(tmp_path_factory.mktemp("info") / "final", config, tokenizer)


def test_every_named_size_is_listed(run):
    done = run("info", check=True)
    for size in SIZES:
        assert f"\n{size} " in done.stdout
    assert run("info", "--quiet", check=True).stdout.split() == list(SIZES)


def test_the_table_shows_what_was_asked_with_and_without_checkpointing(run):
    arguments = ["info", "--model-size", "400m", "--batch-size", "2", "--seq-len", "256"]
    text = run(*arguments, check=True).stdout
    assert "394.906.880" in text and "calculado" in text and "cabe" in text
    rows = json.loads(run(*arguments, "--json", check=True).stdout)["memory"]
    here = [r for r in rows if (r["batch_size"], r["seq_len"]) == (2, 256)]
    assert {r["loss"] for r in here} == {"chunked", "plain"}
    asked = {r["checkpointing"]: r for r in here if r["loss"] == "chunked"}
    for policy, every in (("none", 0), ("full", 1)):
        e = estimate(
            replace(SIZES["400m"], max_seq_len=256),
            batch_size=2,
            seq_len=256,
            checkpoint_every=every,
            precision="fp16",
            optimizer="muon",
        )
        assert asked[policy]["total"] == e.total
        parts = ("weights", "autocast_cache", "gradients", "optimizer", "activations", "logits", "workspace")
        assert sum(asked[policy][part] for part in parts) + asked[policy]["context"] == e.total
    assert asked["full"]["activations"] < asked["none"]["activations"]


@pytest.mark.parametrize(("optimizer", "alone"), [([], "yes"), (["--optimizer", "adamw"], "no")])
def test_the_800m_fits_a_t4_with_checkpointing_or_with_muon_in_a_batch_of_one(run, optimizer, alone):
    arguments = ["--model-size", "800m", "--batch-size", "1", "--seq-len", "1024", "--json", *optimizer]
    data = json.loads(run("info", *arguments).stdout)
    marks = {(r["batch_size"], r["seq_len"], r["checkpointing"]): r["fits"] for r in data["memory"]}
    assert marks[1, 1024, "full"] == "yes"
    assert marks[1, 1024, "none"] == alone and marks[4, 1024, "none"] == "no"


def test_the_recommendation_for_one_and_two_t4s_fits_and_keeps_the_tokens_of_a_step(run):
    for size, tokens in (("85m", 131_072), ("400m", 262_144), ("800m", 262_144)):
        arguments = ["info", "--model-size", size, "--batch-size", "1", "--seq-len", "1024"]
        rows = json.loads(run(*arguments, "--json", check=True).stdout)["recommended"]
        assert {(r["cards"], r["optimizer"]) for r in rows} >= {(1, "adamw"), (2, "adamw"), (2, "muon")}
        for row in rows:
            assert row["fits"] and row["total"] <= 0.95 * T4_BYTES and row["basis"] == "computed"
            assert row["batch_size"] * row["grad_accum"] * 1024 == tokens
        text = " ".join(run(*arguments, check=True).stdout.split())
        assert "--batch-size auto" in text and "calculados, com a velocidade de T4s do Kaggle" in text


def test_a_larger_card_holds_more(run):
    arguments = ["info", "--model-size", "800m", "--batch-size", "1", "--seq-len", "1024", "--json"]
    for gib, expected in (("24", "yes"), ("8", "no")):
        rows = json.loads(run(*arguments, "--gpu-memory", gib).stdout)["memory"]
        assert {r["fits"] for r in rows if (r["batch_size"], r["seq_len"]) == (1, 1024)} == {expected}


def test_tight_means_less_than_five_percent_of_the_card_left():
    small = estimate(SIZES["85m"], batch_size=2, seq_len=256, checkpoint_every=0, precision="fp16")
    assert fit(small) == "yes"
    assert fit(replace(small, activations=T4_BYTES - small.total + small.activations)) == "tight"
    assert fit(replace(small, activations=20 * GIB)) == "no"


def test_the_plan_looks_around_what_was_asked():
    assert (2, 256) in Plan(2, 256, "fp16").around()
    assert Plan(1, 1, "fp16").around()[0] == (1, 1)


def test_flops_are_six_a_weight_plus_attention_and_checkpointing_adds_a_forward():
    model = SIZES["85m"]
    weights = model.num_parameters - (2 * model.num_layers + 1) * model.hidden_size
    attention = 6 * model.num_layers * model.q_size * 1024
    assert flops_per_token(model, 1024) == 6 * weights + attention
    # Computed by hand, 6N and attention: 0.561 GFLOP for 84.9M of 13 x 640 at 1,024 tokens.
    reference = replace(
        model, hidden_size=640, num_layers=13, num_heads=10, num_kv_heads=10, intermediate_size=1728
    )
    assert flops_per_token(reference, 1024) / 1e9 == pytest.approx(0.561, rel=0.02)
    assert flops_per_token(reference, 1024, checkpoint_every=1) / 1e9 == pytest.approx(0.706, rel=0.02)
    half = flops_per_token(model, 1024, checkpoint_every=2)
    assert flops_per_token(model, 1024) < half < flops_per_token(model, 1024, checkpoint_every=1)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--model-size", "1b"], "E_MODEL_SIZE"),
        (["--model-size", "nano", "--precision", "fp8"], "E_CONFIG"),
        (["--model-size", "nano", "--batch-size", "0"], "E_CONFIG"),
        (["--model-size", "nano", "--vocab-size", "-1"], "E_CONFIG"),
        (["--model-size", "nano", "--gpu-memory", "nan"], "E_CONFIG"),
        (["nada", "--model-size", "nano"], "E_USAGE"),
    ],
)
def test_nonsense_is_answered_as_usage(run, arguments, code):
    done = run("info", *arguments)
    assert done.returncode == Exit.USAGE and f"Erro [{code}]" in done.stderr and not done.stdout


def test_a_model_folder_shows_config_files_tokenizer_and_memory(run, model_folder):
    text = run("info", model_folder, check=True).stdout
    assert "Modelo em" in text and "model.safetensors" in text and "300 tokens, BPE de bytes" in text
    assert "Memória do treino" in text
    data = json.loads(run("info", model_folder, "--json", check=True).stdout)
    assert data["kind"] == "model" and data["config"]["vocab_size"] == 300
    assert data["tokenizer"]["vocab_size"] == 300 and data["files"]["config.json"] > 0


def test_an_export_shows_what_was_measured_and_no_training_memory(run, model_folder, tmp_path):
    export = tmp_path / "export"
    shutil.copytree(model_folder, export)
    (export / "manifest.json").unlink()
    write_manifest(export, "export", target="cpu", precision="int8", parity={"max_logit_error": 0.0123},
                   bits_per_byte=1.914)  # fmt: skip
    text = run("info", export, check=True).stdout
    assert "exportado" in text and "precisão: int8" in text and "1,914" in text and "0,0123" in text
    assert "Memória do treino" not in text
    assert json.loads(run("info", export, "--json").stdout)["manifest"]["precision"] == "int8"


def test_a_runs_folder_shows_its_final_model_or_newest_checkpoint(run, model_folder, tmp_path):
    folder = tmp_path / "treino"
    shutil.copytree(model_folder, folder / "checkpoints" / "step-00000005")
    (folder / "checkpoints" / "latest").write_text("step-00000005")
    assert "step-00000005" in json.loads(run("info", folder, "--json").stdout)["path"]
    shutil.copytree(model_folder, folder / "final")
    assert json.loads(run("info", folder, "--json").stdout)["path"].endswith("final")


def test_a_llama_folder_from_elsewhere_opens_without_a_manifest(run, model_folder, tmp_path):
    foreign = tmp_path / "tucano"
    shutil.copytree(model_folder, foreign)
    (foreign / "manifest.json").unlink()
    (foreign / "tokenizer.json").unlink()
    done = run("info", foreign, check=True)
    assert "sem manifesto" in done.stdout and "não há tokenizer.json" in done.stdout


@pytest.mark.parametrize("damage", ["truncated", "missing", "not json"])
def test_a_damaged_folder_is_refused_as_corrupt(run, model_folder, tmp_path, damage):
    broken = tmp_path / "m"
    shutil.copytree(model_folder, broken)
    weights = broken / "model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:100])
    elif damage == "missing":
        weights.unlink()
    else:
        (broken / "config.json").write_text("x" * (broken / "config.json").stat().st_size)
    done = run("info", broken)
    assert done.returncode == Exit.CORRUPT and done.stderr.startswith("Erro [E_"), done.stderr


def test_what_is_no_model_gets_the_command_that_fits(run, tmp_path):
    assert "E_NOT_FOUND" in run("info", tmp_path / "nada").stderr
    assert "E_MODEL_INVALID" in run("info", tmp_path).stderr
    (tmp_path / "m.pt").write_bytes(b"\x80\x02")
    assert "E_PICKLE" in run("info", tmp_path / "m.pt").stderr
    data = tmp_path / "dados"
    data.mkdir()
    (data / "index.json").write_text("{}")
    assert f"ptbr-slm data stats {data}" in run("info", data).stderr
