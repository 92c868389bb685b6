"""Recipes at work on whole models: mixed precision, an int4 head, calibration, the gate, and the table."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from ptbr_slm_export import export_model
from ptbr_slm_export.llama import LlamaWeights
from ptbr_slm_export.measure import Measured
from ptbr_slm_export.quantization.activations import Activations
from ptbr_slm_export.quantization.calibration import BUILT_IN, calibration_text
from ptbr_slm_export.quantization.recipe import HEADS, METHODS, RECIPES, recipe_for
from ptbr_slm_export.quantization.sensitivity import sensitivities
from ptbr_slm_export.targets import target_of
from ptbr_slm_export.verification.stored_weights import StoredWeights

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.engines.torch import TorchEngine
from ptbr_slm.storage.manifest import read_manifest
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.storage.weights import WeightReader

TEXT = "O menino foi à feira com a mãe e voltou com três laranjas e um peixe. " * 60


def refusal(*arguments, **keywords) -> SlmError:
    with pytest.raises(SlmError) as caught:
        export_model(*arguments, **keywords)
    return caught.value


@pytest.mark.parametrize("method", METHODS)
def test_an_export_by_each_method_is_accepted_and_says_how_it_was_made(tied, tmp_path, method):
    report = export_model(tied, tmp_path / "e", precision="int4", method=method)
    assert report.verification is not None and report.verification.passed
    facts = read_manifest(tmp_path / "e").extra
    assert facts["method"] == facts["recipe"]["method"] == method
    assert (facts["flavour"], facts["kv_dtype"]) == ("gqa", "float32")
    assert facts.get("calibration") == (BUILT_IN if method in ("kquant", "gptq") else None)


def test_fp32_has_no_method_in_its_manifest(tied, tmp_path):
    export_model(tied, tmp_path / "e", precision="fp32", verify=False)
    facts = read_manifest(tmp_path / "e").extra
    assert facts["precision"] == "fp32" and "method" not in facts and "recipe" not in facts


def test_a_mixed_export_keeps_the_matrices_that_int4_hurts_most_in_int8_and_verifies(untied, tmp_path):
    recipe = replace(RECIPES["int4"], mixed_extra=0.3)
    report = export_model(untied, tmp_path / "e", precision="int4", recipe=recipe)
    assert report.recipe is not None and report.recipe.mixed
    assert report.verification is not None and report.verification.passed
    stored = StoredWeights(tmp_path / "e" / "model.onnx", ModelFolder(untied).config)
    weights = LlamaWeights(ModelFolder(untied).config, WeightReader(untied).read)
    parts = {"down": "mlp.down_proj", "attention_out": "self_attn.o_proj", "gate": "mlp.gate_proj",
             "up": "mlp.up_proj", "qkv": "self_attn.q_proj"}  # fmt: skip
    for layer in range(2):
        for part, name in parts.items():
            expected = 8 if f"layers.{layer}.{part}" in report.recipe.mixed else 4
            assert stored.bits(f"model.layers.{layer}.{name}.weight") == expected
    sizes = [
        getattr(weights, name.split(".")[2])(int(name.split(".")[1])).size for name in report.recipe.mixed
    ]
    total = sum(getattr(weights, part)(layer).size for layer in range(2) for part in parts)
    assert sum(sizes) <= 0.3 * total
    assert read_manifest(tmp_path / "e").extra["recipe"]["mixed"] == list(report.recipe.mixed)


def test_sensitivity_finds_the_matrix_that_is_spoilt(untied, tokenizer):
    config = ModelFolder(untied).config
    weights = LlamaWeights(config, WeightReader(untied).read)
    windows = calibration_text(untied, tokenizer, config.max_seq_len).windows
    found = sensitivities(
        config, weights, windows, lambda name, matrix: matrix * (0.5 if name == "layers.1.up" else 0.999)
    )
    assert max(found, key=lambda name: found[name][0]) == "layers.1.up"
    assert len(found) == 5 * config.num_layers


@pytest.mark.parametrize("model", ["tied", "untied"])
@pytest.mark.parametrize("head", HEADS)
def test_every_head_verifies_and_stores_what_it_says(request, tmp_path, model, head):
    folder = request.getfixturevalue(model)
    report = export_model(folder, tmp_path / "e", precision="int4", recipe=recipe_for("int4", head=head))
    assert report.verification is not None and report.verification.passed
    config, recipe = ModelFolder(folder).config, read_manifest(tmp_path / "e").extra["recipe"]
    stored = StoredWeights(tmp_path / "e" / "model.onnx", config)
    bits = [stored.bits(name) for name in stored.names() if name.startswith("lm_head")]
    if model == "tied":
        assert bits == ([] if head == "int8" else [4]) and stored.has_own_head == (head != "int8")
    else:
        assert bits == {"int8": [8], "int4": [4], "int4-rescored": [4, 8]}[head]
    assert (recipe["head_bits"], recipe["head_rescored"] > 0) == (8 if head == "int8" else 4, "res" in head)


@pytest.mark.parametrize("model", ["tied", "untied", "normalised", "foreign"])
def test_calibration_reads_the_model_as_pytorch_does(model, request):
    folder = request.getfixturevalue(model)
    config = ModelFolder(folder).config
    ids = np.arange(40) * 7 % config.vocab_size
    weights = LlamaWeights(config, WeightReader(folder).read)
    with_grams = Activations(config, weights, [ids, ids[:9]])
    gram = with_grams.gram("layers.1.gate")
    assert gram.shape == (config.hidden_size, config.hidden_size) and np.allclose(gram, gram.T)
    found = with_grams.logits()
    engine = TorchEngine(ModelFolder(folder), "cpu")
    for ours, read in zip(found, (ids, ids[:9]), strict=True):
        np.testing.assert_allclose(ours, engine.logits(read.tolist()), atol=2e-3)
    engine.close()


def test_the_calibration_text_is_named_and_is_never_the_held_out_one(tied, tmp_path, tokenizer):
    from ptbr_slm.eval.held_out import built_in_text

    own = calibration_text(tied, tokenizer, 64)
    judged = {tuple(inputs.tolist()) for inputs, _ in built_in_text(tokenizer, 64).windows()}
    assert own.name == BUILT_IN and sum(map(len, own.windows)) > 1000
    assert not judged & {tuple(window.tolist()) for window in own.windows}
    (tmp_path / "texto.txt").write_text(TEXT)
    given = calibration_text(tied, tokenizer, 64, tmp_path / "texto.txt")
    assert given.name.endswith("texto.txt") and all(len(window) <= 64 for window in given.windows)
    export_model(tied, tmp_path / "e", precision="int4", calibration=tmp_path / "texto.txt", verify=False)
    assert read_manifest(tmp_path / "e").extra["calibration"].endswith("texto.txt")
    (tmp_path / "vazio.txt").write_text("  \n")
    out = tmp_path / "x"
    assert refusal(tied, out, precision="int4", calibration=tmp_path / "vazio.txt").code == "E_DATA_EMPTY"
    assert refusal(tied, out, precision="int4", calibration=tmp_path / "nada.txt").code == "E_NOT_FOUND"
    error = refusal(tied, out, precision="int8", calibration=tmp_path / "texto.txt")
    assert error.code == "E_USAGE" and "gptq" in error.hint
    assert not out.exists()


def test_a_quantisation_that_spoils_the_model_does_not_pass_the_gate(tied, tmp_path, monkeypatch):
    import ptbr_slm_export.quantization.quantizer as module

    right = module.quantize

    def careless(weights, *arguments):
        found = right(weights, *arguments)
        return replace(found, scales=found.scales * 1.5)

    monkeypatch.setattr(module, "quantize", careless)
    error = refusal(tied, tmp_path / "e", precision="int4")
    assert error.code == "E_VERIFY" and not (tmp_path / "e").exists()


def test_a_target_and_a_precision_that_are_not_there_are_named(tied, tmp_path):
    error = refusal(tied, tmp_path / "e", target="cpu", precision="fp16")
    assert error.code == "E_USAGE" and "fp32, int8, int4" in error.message
    assert "cpu" in refusal(tied, tmp_path / "e", target="tpu").message


def test_the_command_compares_the_precisions_in_a_table_and_keeps_the_one_asked_for(cli, tied, tmp_path):
    done = cli("export", tied, "-o", "e", "--precision", "int4", "--compare", "--json", check=True)
    body = json.loads(done.stdout)
    assert [row["precision"] for row in body["comparison"]] == ["fp32", "int8", "int4"]
    for row in body["comparison"]:
        assert row["bytes"] > 0 and row["bits_per_byte"] > 0 and row["tokens_per_second"] > 0
    assert body["precision"] == "int4" and body["recipe"]["method"] == "gptq"
    assert body["tokens_per_second"] == body["comparison"][2]["tokens_per_second"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e"]


def test_the_table_marks_what_was_kept_and_says_where_speed_was_measured(tied, tmp_path):
    from ptbr_slm.cli.export import measured_table

    report = export_model(tied, tmp_path / "e", precision="int8", method="rtn")
    assert report.verification is not None
    bits = report.verification.reference_bits_per_byte
    rows = [
        Measured(
            precision="int8", method="rtn", bytes=2048, bits_per_byte=1.01 * bits, tokens_per_second=9.5
        ),
        Measured(precision="int4", method="gptq", bytes=1024, bits_per_byte=None, tokens_per_second=None),
    ]
    lines = measured_table(rows, report).splitlines()
    assert lines[2].split()[:3] == ["int8", "(rtn)", "2,0"] and lines[2].endswith("gravado")
    assert "+1,000 %" in lines[2] and " 9,5 " in lines[2] and "gravado" not in lines[3]
    assert "medidos agora nesta máquina" in lines[-1]
    assert "outra máquina" in measured_table(rows[1:], report)


def test_a_head_is_chosen_by_name_and_the_cpus_int4_scores_its_best_logits_again():
    kept = recipe_for("int4")
    assert kept == recipe_for("int4", head="int4-rescored") and kept is not None and kept.head_rescored > 0
    plain, int8 = recipe_for("int4", head="int4"), recipe_for("int4", head="int8")
    assert plain is not None and (plain.head_bits, plain.head_rescored) == (4, 0)
    assert int8 is not None and (int8.head_bits, int8.head_block, int8.head_rescored) == (8, 128, 0)
    assert recipe_for("int4", head="int4", head_block=32).head_block == 32
    assert recipe_for("int8") == recipe_for("int8", head="int8")
    cuda = target_of("cuda")
    assert (cuda.recipe_for("int4").head_bits, cuda.recipe_for("int4").head_block) == (8, 32)
    with pytest.raises(SlmError) as caught:
        cuda.recipe_for("int4", head="int4-rescored")
    assert caught.value.code == "E_USAGE" and "int8, int4" in caught.value.message
