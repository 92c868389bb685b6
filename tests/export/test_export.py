"""The export folder: whole and verified, or nothing at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from ptbr_slm_export import export_model

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.manifest import read_manifest
from ptbr_slm.storage.model_folder import seal_model_folder
from ptbr_slm.tokenizer import Tokenizer


def refusal(*arguments, **keywords) -> SlmError:
    with pytest.raises(SlmError) as caught:
        export_model(*arguments, **{"verify": False, "precision": "fp32", **keywords})
    return caught.value


def test_an_export_holds_the_graph_the_tokenizer_the_configuration_and_what_was_measured(tied, tmp_path):
    report = export_model(tied, tmp_path / "e", precision="int8")
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == [
        "config.json",
        "generation_config.json",
        "manifest.json",
        "model.onnx",
        "model.onnx.data",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    manifest = read_manifest(tmp_path / "e")
    assert manifest.kind == "export"
    assert manifest.extra["target"] == "cpu" and manifest.extra["precision"] == "int8"
    assert manifest.extra["source_sha256"] == report.source_sha256
    assert report.verification is not None and report.verification.passed
    assert manifest.extra["bits_per_byte"] == report.verification.bits_per_byte
    assert [check["name"] for check in manifest.extra["parity"]["checks"]] == [
        "cosine",
        "weights",
        "parts",
        "chunked_prefill",
        "ragged_batch",
        "bits_per_byte",
    ]
    assert report.bytes < 0.4 * sum(path.stat().st_size for path in tied.glob("*.safetensors"))


def test_an_export_repeats_how_its_model_was_trained_and_carries_its_card(tied, tmp_path):
    model, out = shutil.copytree(tied, tmp_path / "m"), tmp_path / "e"
    (model / "README.md").write_text("# Um modelo de teste\n", encoding="utf-8")
    trained = {"steps": 8, "tokens": 512, "data": {"name": "dados", "licences": {"CC0": 3}}}
    seal_model_folder(model, **trained, source_run="/home/maria/runs/x")
    export_model(model, out, precision="fp32", verify=False)
    assert read_manifest(out).extra["trained"] == trained
    assert (out / "README.md").read_bytes() == (model / "README.md").read_bytes()


def test_the_same_model_gives_the_same_bytes(tied, tmp_path):
    manifests = []
    for name in ("a", "b"):
        export_model(tied, tmp_path / name, precision="int4", verify=False)
        manifests.append(read_manifest(tmp_path / name).files)
    assert manifests[0] == manifests[1]


def test_an_earlier_export_is_replaced_and_anything_else_is_not_touched(tied, tmp_path):
    out = tmp_path / "e"
    export_model(tied, out, precision="int8", verify=False)
    export_model(tied, out, precision="fp32", verify=False)
    assert read_manifest(out).extra["precision"] == "fp32"
    (tmp_path / "vazia").mkdir()
    export_model(tied, tmp_path / "vazia", precision="fp32", verify=False)
    (tmp_path / "minha").mkdir()
    (tmp_path / "minha" / "tese.txt").write_text("não apague")
    (tmp_path / "arquivo").write_text("nem este")
    for path in (tmp_path / "minha", tmp_path / "arquivo", tied):
        assert refusal(tied, path).code == "E_EXISTS"
    assert (tmp_path / "minha" / "tese.txt").read_text() == "não apague"
    assert (tmp_path / "arquivo").read_text() == "nem este"


def test_what_the_graph_cannot_express_is_refused_by_name_before_any_work(
    make_model, copy_of, tied, tmp_path
):
    out = tmp_path / "e"
    assert "head_dim é 24" in refusal(make_model(head_dim=24), out).message
    narrow = make_model(intermediate_size=88)
    assert "múltiplas de 32" in refusal(narrow, out, precision="int8").message
    export_model(narrow, tmp_path / "fp32", precision="fp32", verify=False)

    scaled = copy_of(tied)
    (scaled / "manifest.json").unlink()
    body = json.loads((scaled / "config.json").read_text())
    body["rope_parameters"] = {"rope_type": "yarn", "factor": 8.0}
    (scaled / "config.json").write_text(json.dumps(body))
    error = refusal(scaled, out)
    assert error.code == "E_MODEL_INVALID" and "yarn" in error.message
    assert not out.exists()


def test_a_model_without_tokenizer_or_with_too_large_a_one_is_refused(make_model, copy_of, tied, tmp_path):
    small = make_model(vocab_size=320)
    assert refusal(small, tmp_path / "e").code == "E_TOKENIZER_MISMATCH"
    bare = copy_of(tied)
    (bare / "manifest.json").unlink()
    (bare / "tokenizer.json").unlink()
    assert refusal(bare, tmp_path / "e").code == "E_TOKENIZER_MISSING"
    assert not (tmp_path / "e").exists()


def test_the_folder_of_a_run_leads_to_its_model(tied, tmp_path):
    shutil.copytree(tied, tmp_path / "run" / "final")
    error = refusal(tmp_path / "run", tmp_path / "e")
    assert error.code == "E_MODEL_INVALID" and str(tmp_path / "run" / "final") in error.hint


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_a_missing_tensor_leaves_nothing_behind(copy_of, untied, tmp_path, precision):
    from safetensors.numpy import load_file, save_file

    broken = copy_of(untied)
    (broken / "manifest.json").unlink()
    weights = load_file(broken / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, broken / "model.safetensors")
    before = sorted(tmp_path.iterdir())
    error = refusal(broken, tmp_path / "e", precision=precision)
    assert error.code == "E_MODEL_INVALID" and "down_proj" in error.message
    assert sorted(tmp_path.iterdir()) == before


def test_an_export_that_answers_otherwise_is_refused_and_the_earlier_one_stays(tied, tmp_path, monkeypatch):
    import ptbr_slm_export.graphs.gqa as graph

    out = tmp_path / "e"
    export_model(tied, out, precision="int8", verify=False)
    before = read_manifest(out).files
    right = graph.rope_tables
    monkeypatch.setattr(graph, "rope_tables", lambda config: right(config)[::-1])  # cos and sin swapped
    for precision in ("fp32", "int8"):
        error = refusal(tied, out, precision=precision, verify=True)
        assert error.code == "E_VERIFY" and error.exit_code == 4
    assert read_manifest(out).files == before
    assert [path.name for path in tmp_path.iterdir()] == ["e"]


def test_a_full_disk_is_an_answer_and_leaves_nothing(tied, small_disk):
    error = refusal(tied, small_disk / "e")
    assert error.code == "E_DISK_FULL"
    assert list(small_disk.iterdir()) == []


def test_a_read_only_folder_is_an_answer(tied, tmp_path):
    if os.geteuid() == 0:
        out = Path("/proc/nada")  # root ignores permission bits; procfs refuses even root
    else:
        tmp_path.chmod(0o500)
        out = tmp_path / "e"
    assert refusal(tied, out).code in ("E_PERMISSION", "E_NOT_FOUND")


def test_a_foreign_folder_without_our_manifest_is_verified_too(foreign, tmp_path):
    report = export_model(foreign, tmp_path / "e", precision="fp32").verification
    assert report is not None and report.passed
    assert Tokenizer.load(tmp_path / "e").vocab_size > 300
