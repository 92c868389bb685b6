"""A draft layer in an export: it expects what PyTorch's does, changes no text, and is its model's own."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from near_ties import assert_same_but_for_near_ties
from ptbr_slm_export import export_model, verify_export
from ptbr_slm_export.verification.draft import draft_check
from refusals import refusal
from tiny_drafts import write_random_draft

from ptbr_slm.runtime.engines.onnx.engine import OnnxEngine
from ptbr_slm.runtime.engines.torch import TorchEngine
from ptbr_slm.runtime.model import Model
from ptbr_slm.storage.draft_folder import draft_of
from ptbr_slm.storage.model_folder import ModelFolder

TEXT = [5, 9, 33, 120, 7, 88, 250, 14, 61, 3]


@pytest.fixture(scope="module")
def drafted(make_model):
    """A model with a draft layer in its folder."""
    model = make_model(seed=21)
    write_random_draft(model)
    return model


@pytest.fixture(scope="module")
def export(drafted, tmp_path_factory):
    """Its fp32 export."""
    out = tmp_path_factory.mktemp("drafted") / "fp32"
    export_model(drafted, out, precision="fp32")
    return out


def test_the_layer_rides_and_expects_what_pytorch_does(drafted, export):
    facts = json.loads((export / "manifest.json").read_text())
    assert facts["draft"]["head_tokens"] == 100 and "draft.onnx" in facts["files"]
    assert facts["draft"]["acceptance"] == 0.5
    assert any(check["name"] == "draft" and check["passed"] for check in facts["parity"]["checks"])
    folder = ModelFolder(drafted)
    layer = draft_of(folder)
    assert layer is not None
    engines = OnnxEngine(export), TorchEngine(folder, "cpu").with_draft(layer)
    for engine in engines:
        engine.reset(1, 80)
        engine.prefill(0, TEXT[:4])
    for token in TEXT[4:7]:  # after a prefill, then after each step of one token
        found, expected = (engine.draft(0, token) for engine in engines)
        assert np.array_equal(found.tokens, expected.tokens)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
        for engine in engines:
            engine.decode([0], [token])
    for engine in engines:
        engine.extend(0, TEXT[7:])
        engine.truncate(0, 8)
    found, expected = (engine.draft(0, 2) for engine in engines)  # the second of the three has not happened
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


def test_a_state_that_is_no_longer_known_gives_no_guess(drafted, export):
    layer = draft_of(ModelFolder(drafted))
    for engine in (OnnxEngine(export), TorchEngine(ModelFolder(drafted), "cpu").with_draft(layer)):
        engine.reset(2, 80)
        assert engine.draft(0, 1) is None  # nothing was run
        engine.prefill(0, TEXT)
        assert engine.draft(0, 1) is not None
        assert engine.draft(1, 1) is None  # another slot
        engine.truncate(0, 4)
        if engine.name == "onnx":  # whose prefill gives the last state only
            assert engine.draft(0, 1) is None
        engine.prefill(1, TEXT)
        assert engine.draft(0, 1) is None and engine.draft(1, 1) is not None
        engine.decode([0, 1], [1, 1])
        engine.open_slot()
        assert engine.draft(0, 1) is None and engine.draft(1, 1) is None


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"seed": 3}, {"seed": 4, "n": 2}])
def test_a_text_is_the_same_with_and_without_the_layer(export, options):
    with Model(export) as model:
        plain = model.generate_detailed("O rio", max_new_tokens=60, draft="never", ignore_eos=True, **options)
        for use in ("always", "auto"):
            found = model.generate_detailed("O rio", max_new_tokens=60, draft=use, ignore_eos=True, **options)
            pairs = zip(found, plain, strict=True) if isinstance(found, list) else [(found, plain)]
            for index, (one, other) in enumerate(pairs):
                own = {**options, "seed": options["seed"] + index} if "seed" in options else options
                own.pop("n", None)
                assert_same_but_for_near_ties(model, "O rio", one, other, **own)
                if use == "always" and "n" not in options:
                    assert one.drafted > 20


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantised_exports_carry_it_in_int8(drafted, tmp_path, precision):
    method = "rtn" if precision == "int4" else None
    report = export_model(drafted, tmp_path / "e", precision=precision, method=method)
    assert next(check for check in report.verification.checks if check.name == "draft").value > 0.98
    stored = (tmp_path / "e" / "draft.onnx.data").stat().st_size
    parameters = draft_of(ModelFolder(drafted)).config.num_parameters
    assert 0.9 * parameters < stored < 1.2 * parameters  # and the embedding is not stored again


def test_a_layer_of_another_model_is_refused(make_model, drafted, tmp_path):
    other = make_model(seed=22)
    shutil.copytree(drafted / "draft", other / "draft")
    error = refusal(export_model, other, tmp_path / "e", precision="fp32")
    assert error.code == "E_DRAFT" and "ptbr-slm draft" in error.hint
    assert not (tmp_path / "e").exists()
    report = export_model(other, tmp_path / "e", precision="fp32", draft=False)
    assert report.verification.passed and not (tmp_path / "e" / "draft.onnx").exists()
    assert refusal(export_model, other, tmp_path / "f", draft=drafted / "draft").code == "E_DRAFT"


def test_verify_wants_the_layer_that_the_export_was_made_with(drafted, export, copy_of, tmp_path):
    assert verify_export(export, drafted).passed
    copy = copy_of(drafted)
    shutil.move(copy / "draft", tmp_path / "draft")
    assert refusal(verify_export, export, copy).code == "E_VERIFY"
    assert verify_export(export, copy, draft=tmp_path / "draft").passed
    write_random_draft(copy, seed=1)
    assert refusal(verify_export, export, copy).code == "E_VERIFY"


def test_a_layer_that_answers_otherwise_fails_the_check():
    chance = np.random.default_rng(0)
    scores = chance.standard_normal((20, 50), dtype=np.float32)
    assert draft_check("int8", scores, scores + 1).passed  # a constant changes no choice
    assert not draft_check("int8", scores, np.roll(scores, 1, axis=1)).passed
    assert not draft_check("fp32", scores, scores * np.nan).passed


@pytest.mark.parametrize("target", ["genai", "tensorrt"])
def test_other_targets_leave_it_out_and_say_so(drafted, tmp_path, target):
    told: list[str] = []
    export_model(drafted, tmp_path / "e", target=target, precision="fp32", verify=False, on_step=told.append)
    assert not (tmp_path / "e" / "draft.onnx").exists()
    assert any("rascunho" in step for step in told)
    error = refusal(export_model, drafted, tmp_path / "f", target=target, draft=drafted / "draft")
    assert error.code == "E_USAGE"


@pytest.mark.parametrize("damage", ["config.json", "draft.safetensors", "manifest.json"])
def test_a_damaged_layer_is_refused(drafted, copy_of, tmp_path, damage):
    copy = copy_of(drafted)
    file = copy / "draft" / damage
    file.write_bytes(file.read_bytes()[:-20])
    assert refusal(export_model, copy, tmp_path / "e", precision="fp32").code == "E_DRAFT"
