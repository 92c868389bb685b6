"""Verification measures in the model's own scale: large logits, noisy arithmetic, and faults nonetheless."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.numpy
from ptbr_slm_export import export_model, verify_export
from ptbr_slm_export.verification.checks import (
    COSINE,
    LOGITS,
    SMALLEST_COSINE,
    agreement_limit,
    cosine_limit,
    logit_limit,
    run_checks,
)
from ptbr_slm_export.verification.locate import WorstPart
from ptbr_slm_export.verification.probe import Answers, SelfAgreement, measure_noise
from ptbr_slm_export.verification.reference import Part
from ptbr_slm_export.verification.stored_weights import WrongWeight

from ptbr_slm.eval.bits import BitsPerByte
from ptbr_slm.runtime.engines.torch import TorchEngine
from ptbr_slm.storage.manifest import read_manifest, write_manifest
from ptbr_slm.storage.model_folder import ModelFolder

TOKENS = np.random.default_rng(2).integers(5, 390, 64).tolist()
SOUND = WrongWeight("model.norm.weight", 0, -1, 1.0, 1.0, error=0.0, limit=0.0)


@pytest.fixture
def scaled(untied, copy_of):
    """factor -> `untied` with the gain of its last norm multiplied by it."""

    def make(factor: float) -> Path:
        copy = copy_of(untied)
        (copy / "manifest.json").unlink()
        weights = safetensors.numpy.load_file(copy / "model.safetensors")
        weights["model.norm.weight"] = weights["model.norm.weight"] * np.float32(factor)
        safetensors.numpy.save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
        return Path(copy)

    return make


@pytest.fixture
def outliers(make_model, copy_of) -> Path:
    """A model of 8 layers whose norms make some channels 60 times larger, for which its matrices make up.

    It computes what it did; but a block of activations with such a channel keeps little of the rest in int8.
    """
    copy = copy_of(make_model(num_layers=8))
    (copy / "manifest.json").unlink()
    weights = safetensors.numpy.load_file(copy / "model.safetensors")
    for name, array in weights.items():
        if "layernorm" in name:
            array[[3, 40]] *= 60
        elif name.endswith(
            ("q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight", "up_proj.weight")
        ):
            array[:, [3, 40]] /= 60
    safetensors.numpy.save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    return Path(copy)


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_a_model_with_outlier_channels_is_accepted_where_its_bits_per_byte_stay(
    outliers, tmp_path, precision
):
    report = export_model(outliers, tmp_path / "e", precision=precision)
    assert report.verification is not None and report.verification.passed
    exact = report.recipe.exact if report.recipe else ()
    assert ("layers.0.qkv" in exact) == (precision != "fp32") and "layers.0.down" not in exact


def test_a_model_without_outlier_channels_is_quantised_as_before(untied, tmp_path):
    report = export_model(untied, tmp_path / "e", precision="int8", verify=False)
    assert report.recipe is not None and report.recipe.exact == () and "exact" not in report.recipe.as_dict()
    nodes = onnx.load(tmp_path / "e" / "model.onnx", load_external_data=False).graph.node
    products = [node for node in nodes if node.op_type == "MatMulNBits"]
    assert all(any(a.name == "accuracy_level" and a.i == 4 for a in node.attribute) for node in products)


def noise_of(folder: Path) -> tuple[float, np.ndarray]:
    engine = TorchEngine(ModelFolder(folder), "cpu")
    logits = engine.logits(TOKENS)
    engine.close()
    return measure_noise(ModelFolder(folder), TOKENS, logits), logits


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_a_model_whose_last_norm_is_thirty_times_larger_is_accepted(scaled, tmp_path, precision):
    report = export_model(scaled(30), tmp_path / "e", precision=precision, verify=True)
    assert report.verification is not None and report.verification.passed


def test_a_perturbed_weight_is_found_at_thirty_times_the_scale_too(scaled, tmp_path):
    folder = scaled(30)
    export_model(folder, tmp_path / "e", precision="fp32", verify=False)
    graph = onnx.load(tmp_path / "e" / "model.onnx", load_external_data=False).graph
    entry = next(t for t in graph.initializer if t.name == "layers.1.down.weight")
    offset = int({e.key: e.value for e in entry.external_data}.get("offset", 0))
    np.memmap(tmp_path / "e" / "model.onnx.data", np.float32, "r+", offset=offset, shape=(1,))[0] += 0.05
    facts = read_manifest(tmp_path / "e", hashes=False).extra
    keep = {key: facts[key] for key in ("target", "precision", "source_sha256")}
    write_manifest(tmp_path / "e", "export", **keep)
    failed = [check.name for check in verify_export(tmp_path / "e", folder).checks if not check.passed]
    assert "logits" in failed and "weights" in failed


def test_the_noise_of_fp32_is_measured_against_fp64_and_follows_the_scale(untied, scaled):
    noise, logits = noise_of(untied)
    assert 1e-8 < noise < 2e-5 * np.abs(logits).max()
    larger, _ = noise_of(scaled(30))
    assert larger == pytest.approx(30 * noise, rel=0.5)


def answers(spread: float, noise: float, error: float = 0.0) -> Answers:
    logits = np.random.default_rng(0).standard_normal((8, 50)).astype(np.float32)
    logits = logits / logits.std() * np.float32(spread)
    logits[3, 4] += np.float32(error)
    return Answers(logits=(logits,), greedy=(), bits=BitsPerByte(nats=10.0, targets=2, bytes=5), noise=noise)


@pytest.mark.parametrize(
    ("spread", "noise", "limit"),
    [
        (3.0, 1e-6, LOGITS),  # quiet: as it always was
        (7.0, 6e-5, 4.8e-4),  # SmolLM2-135M's
        (7.0, 1.0, 7e-3),  # chaos forgives no more than a thousandth of the spread
        (0.01, 1e-9, 1e-6),  # small logits are compared as closely as large ones
    ],
)
def test_the_limit_of_a_logit_lies_between_the_noise_and_a_thousandth_of_the_spread(spread, noise, limit):
    reference = answers(spread, noise)
    assert logit_limit(reference) == pytest.approx(limit, rel=1e-3)
    agree = SelfAgreement((0.0, ""), (0.0, ""))
    for error, passes in ((0.5 * limit, True), (2 * limit, False)):
        found = run_checks("fp32", reference, answers(spread, noise, error), agree, SOUND, None)
        assert next(check for check in found if check.name == "logits").passed is passes


@pytest.mark.parametrize(
    ("rounding", "limit"),
    [(0.0, COSINE["int8"]), (0.05, COSINE["int8"]), (0.228, 0.974), (3.0, SMALLEST_COSINE)],
)
def test_the_cosine_asked_for_is_what_the_roundings_of_the_parts_leave(rounding, limit):
    part = Part(0, "down", "layers.0.down", True, 0.02, 0.1, 3)
    worst = WorstPart(part=part, limit=0.1, with_past=False, compared=14, rounding=rounding)
    assert cosine_limit("int8", worst) == pytest.approx(limit, abs=1e-3)
    assert cosine_limit("int8", None) == COSINE["int8"]


@pytest.mark.parametrize(("error", "limit"), [(0.1, 0.25), (0.6, 0.6), (50.0, 1.0), (np.nan, 0.25)])
def test_two_ways_of_reading_may_differ_as_far_as_one_lies_from_pytorch_and_no_further(error, limit):
    assert agreement_limit(answers(1.0, 0.0), answers(1.0, 0.0, error)) == pytest.approx(limit, rel=0.01)
