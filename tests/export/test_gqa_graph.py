"""The graph: what it computes, and what it is made of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from ptbr_slm_export import export_model
from ptbr_slm_export.graphs.gqa import rope_tables as exported_rope_tables
from ptbr_slm_export.quantization.recipe import recipe_for

from ptbr_slm.model import Llama, rope_tables
from ptbr_slm.storage.model_folder import ModelFolder

CAPACITY = 80


@pytest.fixture(scope="module")
def exported(tied, untied, normalised, foreign, tmp_path_factory):
    """(name, precision) -> export folder, made once."""
    made: dict[tuple[str, str], Path] = {}
    sources = {"tied": tied, "untied": untied, "normalised": normalised, "foreign": foreign}

    def get(name: str, precision: str) -> tuple[Path, Path]:
        if (name, precision) not in made:
            out = tmp_path_factory.mktemp("exports") / f"{name}-{precision}"
            export_model(sources[name], out, precision=precision, verify=False)
            made[name, precision] = out
        return sources[name], made[name, precision]

    return get


def feeds(model: Llama, ids: np.ndarray, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """Inputs of a first call: ids (B, S), wanted (B, K)."""
    rows, length = ids.shape
    config = model.config
    cache = np.full((rows, config.num_kv_heads, CAPACITY, config.head_dim), np.nan, dtype=np.float32)
    past = {f"past_key_values.{i}.{p}": cache for i in range(config.num_layers) for p in ("key", "value")}
    return {
        "input_ids": ids,
        "seqlens_k": np.full(rows, length - 1, dtype=np.int32),
        "total_sequence_length": np.array(length, dtype=np.int32),
        "logits_index": wanted,
        **past,
    }


@torch.no_grad()
@pytest.mark.parametrize("name", ["tied", "untied", "normalised", "foreign"])
def test_fp32_logits_are_pytorchs_at_every_position_even_with_nan_in_the_unused_cache(exported, name):
    source, out = exported(name, "fp32")
    model = Llama.from_folder(source)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (2, 60))
    session = ort.InferenceSession(out / "model.onnx")
    every = np.tile(np.arange(60), (2, 1))
    logits = session.run(["logits"], feeds(model, ids, every))[0]
    expected = model(torch.from_numpy(ids)).numpy()
    assert np.abs(logits - expected).max() < 1e-4
    some = np.array([[59, 3], [0, 41]])  # any positions, in any order
    picked = session.run(["logits"], feeds(model, ids, some))[0]
    np.testing.assert_allclose(picked, np.take_along_axis(expected, some[:, :, None], 1), atol=1e-4)


def test_transformers_own_model_gives_the_logits_of_its_export(exported, foreign):
    import transformers

    _, out = exported("foreign", "fp32")
    theirs = transformers.LlamaForCausalLM.from_pretrained(foreign, dtype=torch.float32)
    ids = np.random.default_rng(1).integers(0, theirs.config.vocab_size, (1, 40))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(ids)).logits.numpy()
    model = Llama.from_folder(foreign)
    session = ort.InferenceSession(out / "model.onnx")
    logits = session.run(["logits"], feeds(model, ids, np.arange(40)[None]))[0]
    assert np.abs(logits - expected).max() < 1e-4


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("name", ["tied", "untied"])
def test_a_layer_is_ten_nodes_and_no_large_matrix_is_transposed_or_copied(exported, name, precision):
    _, out = exported(name, precision)
    assert sorted(path.name for path in out.glob("model.onnx*")) == ["model.onnx", "model.onnx.data"]
    graph = onnx.load(out / "model.onnx", load_external_data=False).graph
    kinds = [node.op_type for node in graph.node]
    assert len([node for node in graph.node if node.name.startswith("layers.1.")]) == 10
    assert "Transpose" not in kinds
    assert not {"Cast", "Shape", "Concat"} & set(kinds)
    large = [t for t in graph.initializer if np.prod(t.dims) >= 400 * 64]
    assert len(large) == len({t.name for t in large})
    embedding_sized = [t for t in large if t.name.startswith(("embedding", "head"))]
    assert len(embedding_sized) == (1 if name == "tied" else 2)
    assert all(
        {e.value for e in t.external_data if e.key == "location"} == {"model.onnx.data"} for t in large
    )


@pytest.mark.parametrize("head", ["int8", "int4-rescored"])
def test_the_embeddings_int8_matrix_serves_a_tied_head_and_activations_are_int8(tied, tmp_path, head):
    recipe = recipe_for("int4", head=head)
    export_model(tied, tmp_path / "e", precision="int4", recipe=recipe, verify=False)
    graph = onnx.load(tmp_path / "e" / "model.onnx", load_external_data=False).graph
    users = [node.op_type for node in graph.node if "embedding.codes" in node.input]
    assert users == ["GatherBlockQuantized", "MatMulNBits" if head == "int8" else "GatherBlockQuantized"]
    products = [node for node in graph.node if node.op_type == "MatMulNBits"]
    bits = []
    for node in products:
        attributes = {a.name: a.i for a in node.attribute}
        assert attributes["accuracy_level"] == 4
        assert attributes["block_size"] == (32 if attributes["K"] == 96 else 64)  # the largest that fits
        bits.append(attributes["bits"])
    assert bits == [4] * (len(products) - 1) + [8 if head == "int8" else 4]


def test_the_graph_names_its_operator_sets_and_the_inputs_that_the_runtime_binds(exported):
    _, out = exported("tied", "fp32")
    model = onnx.load(out / "model.onnx", load_external_data=False)
    assert {o.domain: o.version for o in model.opset_import} == {"": 21, "com.microsoft": 1}
    inputs = [value.name for value in model.graph.input]
    assert inputs[:4] == ["input_ids", "seqlens_k", "total_sequence_length", "logits_index"]
    assert inputs[4:6] == ["past_key_values.0.key", "past_key_values.0.value"]
    assert [value.name for value in model.graph.output][:2] == ["logits", "present.0.key"]


def test_both_rope_tables_are_the_same(tied):
    config = ModelFolder(tied).config
    for ours, theirs in zip(exported_rope_tables(config), rope_tables(config), strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-7)


def test_exporting_needs_no_torch(untied, tmp_path):
    code = (
        "import sys; from pathlib import Path; from ptbr_slm_export import export_model\n"
        f"source, out = Path({str(untied)!r}), Path({str(tmp_path / 'e')!r})\n"
        "export_model(source, out, precision='int8', verify=False)\n"
        "assert 'torch' not in sys.modules and 'onnxruntime' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "e" / "manifest.json").exists()
