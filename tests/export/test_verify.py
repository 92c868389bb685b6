"""Verification finds what is wrong, and accepts what is only a tie."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from ptbr_slm_export import export_model, verify_export
from ptbr_slm_export.verification.checks import run_checks
from ptbr_slm_export.verification.probe import Answers, Greedy, SelfAgreement
from ptbr_slm_export.verification.stored_weights import WrongWeight

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.bits import BitsPerByte
from ptbr_slm.storage.manifest import write_manifest


@pytest.fixture(scope="module")
def export(untied, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("verify") / "e"
    export_model(untied, out, precision="fp32", verify=False)
    return out


def resign(folder: Path, **changes) -> None:
    """Make the manifest agree with the files as they are now."""
    body = json.loads((folder / "manifest.json").read_text())
    keep = {key: body[key] for key in ("target", "precision", "source_sha256")}
    write_manifest(folder, "export", **{**keep, **changes})


def perturb(folder: Path, tensor: str, amount: float) -> None:
    """Add `amount` to the first weight of an initializer in model.onnx.data."""
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    entry = next(t for t in graph.initializer if t.name == tensor)
    offset = int({e.key: e.value for e in entry.external_data}.get("offset", 0))
    file = np.memmap(folder / "model.onnx.data", dtype=np.float32, mode="r+", offset=offset, shape=(1,))
    file[0] += amount
    file.flush()


def failure(export: Path, source: Path) -> SlmError:
    with pytest.raises(SlmError) as caught:
        verify_export(export, source).require(export)
    return caught.value


def test_a_sound_export_passes_with_every_check_measured(export, untied):
    report = verify_export(export, untied)
    assert report.passed
    measured = {check.name: check for check in report.checks}
    names = ["logits", "greedy", "weights", "parts", "chunked_prefill", "ragged_batch", "bits_per_byte"]
    assert list(measured) == names
    assert measured["weights"].value == 0
    assert 0 < measured["logits"].value < 1e-4
    assert measured["greedy"].value == 0
    assert report.bits_per_byte == pytest.approx(report.reference_bits_per_byte, rel=1e-5)
    assert report.text.counted > 500


@pytest.mark.parametrize("tensor", ["layers.1.down.weight", "layers.0.qkv.weight", "head.weight"])
def test_one_perturbed_weight_is_found_even_behind_a_manifest_that_agrees(export, untied, copy_of, tensor):
    damaged = copy_of(export)
    perturb(damaged, tensor, 0.05)
    assert failure(damaged, untied).code == "E_MANIFEST"
    resign(damaged)
    error = failure(damaged, untied)
    assert error.code == "E_VERIFY" and error.exit_code == 4
    assert "posição" in error.message and "o limite é 7.91e-05" in error.message


def test_another_models_export_is_refused_by_hash_and_by_its_answers(export, make_model, copy_of):
    other = make_model(seed=6, tie_embeddings=False)
    assert "outro modelo" in failure(export, other).message
    forged = copy_of(export)
    from ptbr_slm.storage.model_folder import ModelFolder

    resign(forged, source_sha256=ModelFolder(other).sha256, precision="int4")
    assert failure(forged, other).code == "E_VERIFY"


def test_a_model_folder_is_not_an_export_and_a_changed_model_is_found(export, untied, copy_of):
    assert failure(untied, untied).code == "E_MANIFEST"
    changed = copy_of(untied)
    weights = bytearray((changed / "model.safetensors").read_bytes())
    weights[-1] ^= 64
    (changed / "model.safetensors").write_bytes(weights)
    assert failure(export, changed).code == "E_MODEL_INVALID"
    (changed / "manifest.json").unlink()
    assert failure(export, changed).code == "E_VERIFY"


SOUND = WrongWeight("model.norm.weight", 0, -1, 1.0, 1.0, error=0.0, limit=0.0)


def answers(logits: np.ndarray, tokens: tuple[int, ...], gap: float) -> Answers:
    return Answers(
        logits=(logits,),
        greedy=(Greedy(tokens, (1.0, gap, 1.0)),),
        bits=BitsPerByte(nats=10.0, targets=2, bytes=5),
    )


@pytest.mark.parametrize(("gap", "passes"), [(1e-4, True), (1e-2, False)])
def test_a_greedy_divergence_counts_unless_pytorch_itself_is_tied_there(gap, passes):
    logits = np.random.default_rng(0).standard_normal((2, 9)).astype(np.float32)
    agree = SelfAgreement((0.0, ""), (0.0, ""))
    checks = run_checks(
        "fp32", answers(logits, (4, 5, 6), gap), answers(logits, (4, 7, 8), gap), agree, SOUND, None
    )
    greedy = next(check for check in checks if check.name == "greedy")
    assert greedy.passed is passes
    assert "token 2" in greedy.where and ("empate" in greedy.where) is passes


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_logits_that_are_not_numbers_fail(precision):
    logits = np.random.default_rng(0).standard_normal((2, 9)).astype(np.float32)
    broken = logits.copy()
    broken[1, 3] = np.nan
    nothing = SelfAgreement((float("inf"), "token a token"), (0.0, ""))
    checks = run_checks(
        precision, answers(logits, (1,), 1.0), answers(broken, (1,), 1.0), nothing, SOUND, None
    )
    assert [check.passed for check in checks if check.name in ("logits", "cosine")] == [False]
    assert not next(check for check in checks if check.name == "chunked_prefill").passed


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("part", ["qkv", "attention_out", "gate", "down", "norm"])
def test_a_matrix_swapped_between_two_layers_is_found_in_every_precision(
    foreign, tmp_path, monkeypatch, part, precision
):
    from ptbr_slm_export.llama import LlamaWeights

    right = getattr(LlamaWeights, part)
    monkeypatch.setattr(LlamaWeights, part, lambda self, layer, *name: right(self, 2 - layer, *name))
    export_model(foreign, tmp_path / "e", precision=precision, verify=False)
    report = verify_export(tmp_path / "e", foreign)
    weights = next(check for check in report.checks if check.name == "weights")
    assert not weights.passed and "model.layers." in weights.where


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_graph_that_computes_something_else_over_the_right_weights_is_found(
    untied, tmp_path, monkeypatch, precision
):
    import ptbr_slm_export.graphs.gqa as graph

    right = graph.rope_tables
    monkeypatch.setattr(graph, "rope_tables", lambda config: (right(config)[0], -right(config)[1]))
    export_model(untied, tmp_path / "e", precision=precision, verify=False)
    failed = [check.name for check in verify_export(tmp_path / "e", untied).checks if not check.passed]
    assert failed[0] == "cosine"


def test_a_perturbed_scale_of_an_int4_export_is_found(untied, tmp_path):
    export_model(untied, tmp_path / "e", precision="int4", verify=False)
    perturb(tmp_path / "e", "embedding.scales", 0.01)  # one block of one row that may never be read
    resign(tmp_path / "e")
    error = failure(tmp_path / "e", untied)
    assert error.code == "E_VERIFY" and "model.embed_tokens.weight" in error.message
