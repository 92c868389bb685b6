"""A model with QK-norm (a Qwen3ForCausalLM folder) is exported, verified and served as any other."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from ptbr_slm_export import export_model
from ptbr_slm_export.export import Precision

import ptbr_slm
from ptbr_slm.errors import SlmError


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_its_export_passes_verification(normalised, precision: Precision, tmp_path) -> None:
    export_model(normalised, tmp_path / "export", precision=precision)


def test_a_gain_that_differs_is_found(normalised, tmp_path) -> None:
    from ptbr_slm_export.verification.stored_weights import StoredWeights, worst_weight

    from ptbr_slm.storage.model_folder import ModelFolder
    from ptbr_slm.storage.weights import WeightReader

    export_model(normalised, tmp_path / "export", precision="fp32", verify=False)
    file, config = tmp_path / "export" / "model.onnx", ModelFolder(normalised).config
    assert worst_weight(StoredWeights(file, config), WeightReader(normalised)).error == 0
    graph = onnx.load(file)
    gain = next(t for t in graph.graph.initializer if t.name == "layers.1.k_norm.gain")
    altered = onnx.numpy_helper.to_array(gain).copy()
    altered[3] *= 1.001
    gain.CopyFrom(onnx.numpy_helper.from_array(altered, gain.name))
    onnx.save(graph, file)
    worst = worst_weight(StoredWeights(file, config), WeightReader(normalised))
    assert worst.error == np.inf and "layers.1.self_attn.k_norm" in worst.name


def test_both_engines_write_the_same_text(normalised, tmp_path) -> None:
    export_model(normalised, tmp_path / "export", precision="fp32", verify=False)
    options = {"max_new_tokens": 24, "temperature": 0.0}
    with ptbr_slm.load(normalised, device="cpu") as torch, ptbr_slm.load(tmp_path / "export") as onnx_model:
        prompts = ["O Brasil é", "Era uma vez uma menina"]
        assert torch.generate(prompts, **options) == onnx_model.generate(prompts, **options)


def test_a_folder_without_its_gains_is_refused(normalised, tmp_path) -> None:
    import shutil

    import safetensors.numpy

    from ptbr_slm.model import Llama

    copy = shutil.copytree(normalised, tmp_path / "copy")
    weights = safetensors.numpy.load_file(copy / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "q_norm" not in name}
    safetensors.numpy.save_file(kept, copy / "model.safetensors")
    with pytest.raises(SlmError) as caught:
        Llama.from_folder(copy)
    assert "q_norm" in str(caught.value)
