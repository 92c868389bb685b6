"""What an export for CUDA is made of. Without a GPU: its kernels are listed as ONNX Runtime 1.31 has them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from ptbr_slm_export import export_model, verify_export
from ptbr_slm_export.quantization.blocks import dequantize
from ptbr_slm_export.quantization.quantizer import quantize_symmetric
from ptbr_slm_export.targets import TARGETS
from tiny_models import random_weights, write_model

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.load import open_engine, open_oracle
from ptbr_slm.storage.manifest import read_manifest

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT

KERNELS = {
    *("Gather", "Slice", "MatMul", "Mul", "Cast", "Reshape"),
    "SimplifiedLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "GroupQueryAttention",
    "QuickGelu",
    "FusedMatMul",
    "MatMulNBits",
    "GatherBlockQuantized",
}
"""Operators with an fp16 (for indices an int64) kernel of the CUDA provider (docs/OperatorKernels.md of ONNX
Runtime) that copies nothing from host memory when it runs: GatherND and Split do, so no captured step may
hold them."""

READ_ON_THE_HOST = {
    ("Reshape", 1),
    *(("Slice", index) for index in (1, 2, 3)),
    ("GroupQueryAttention", 6),
}
"""(operator, input) that its CUDA kernel takes in host memory: what the card made would be copied there."""


@pytest.fixture(scope="module")
def exported(tied, untied, normalised, tmp_path_factory):
    """(model, precision) -> the folder and its graph without weights, made once."""
    made = {}
    sources = {"tied": tied, "untied": untied, "normalised": normalised}

    def get(name, precision):
        if (name, precision) not in made:
            out = tmp_path_factory.mktemp("cuda") / f"{name}-{precision}"
            export_model(sources[name], out, target="cuda", precision=precision, verify=False)
            made[name, precision] = out, onnx.load(out / "model.onnx", load_external_data=False)
        return made[name, precision]

    return get


CASES = [
    (name, precision) for name in ("tied", "untied", "normalised") for precision in ("fp16", "int8", "int4")
]


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_every_node_has_a_kernel_and_nothing_needs_a_copy(exported, name, precision):
    graph = exported(name, precision)[1].graph
    assert {node.op_type for node in graph.node} <= KERNELS
    on_the_host = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        for index, value in enumerate(node.input):
            if (node.op_type, index) in READ_ON_THE_HOST:
                assert value in on_the_host, f"{node.name} would fetch {value} from the card"


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_every_float_is_half_but_the_logits(exported, name, precision):
    graph = exported(name, precision)[1].graph
    floats = {t.name: t.data_type for t in graph.initializer if t.data_type in (HALF, FLOAT)}
    assert set(floats.values()) == {HALF}
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    caches = {name: kind for name, kind in types.items() if name.startswith(("past_", "present."))}
    assert len(caches) == 8 and set(caches.values()) == {HALF}
    assert types["logits"] == FLOAT
    casts = [node for node in graph.node if node.op_type == "Cast"]
    assert [list(node.output) for node in casts] == [["logits"]]


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_norms_sum_in_float32(exported, name, precision):
    """The first by its attribute; those that add as well by the provider's strict mode (test_cuda.py)."""
    graph = exported(name, precision)[1].graph
    for node in graph.node:
        if node.op_type == "SimplifiedLayerNormalization":
            assert {a.name: a.i for a in node.attribute}["stash_type"] == FLOAT


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantised_products_suit_the_fused_kernel(exported, precision):
    """Blocks of 32 without zeros. That N is a multiple of 64 is the model's business, and so are ours."""
    graph = exported("untied", precision)[1].graph
    products = [node for node in graph.node if node.op_type == "MatMulNBits"]
    assert len(products) == 2 * 5 + 1
    for node in products:
        attributes = {a.name: a.i for a in node.attribute}
        assert attributes["block_size"] == 32 and len(node.input) == 3
        assert "accuracy_level" not in attributes
        head = node.name == "head"
        assert attributes["bits"] == (8 if head or precision == "int8" else 4)
    assert not any(node.op_type == "MatMul" for node in graph.node)


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
def test_an_export_answers_as_pytorch_where_its_kernels_run_on_the_cpu(tied, tmp_path, precision):
    out = tmp_path / "export"
    report = export_model(tied, out, target="cuda", precision=precision)
    assert report.verification is not None and report.verification.passed
    assert report.verification.stand_in and report.verification.provider == "CPUExecutionProvider"
    facts = read_manifest(out).extra
    assert (facts["target"], facts["flavour"], facts["kv_dtype"]) == ("cuda", "gqa", "float16")
    assert facts["parity"]["stand_in"] is True
    assert verify_export(out, tied).passed


def test_the_oracle_is_the_same_model_and_is_never_served(exported, tied, monkeypatch):
    """Asked for by name it opens; by `open_engine` it does not, whatever the device."""
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    folder, _ = exported("tied", "fp16")
    for device in ("auto", "cpu", "cuda"):
        with pytest.raises(SlmError) as error:
            open_engine(folder, device)
        assert error.value.code == "E_PROVIDER"
        assert "export MODELO" in error.value.hint or "onnxruntime-gpu" in error.value.hint
    oracle, reference = open_oracle(folder), open_engine(tied, "cpu")
    ids = list(range(5, 65))
    logits, expected = oracle.logits(ids), reference.logits(ids)
    assert logits.dtype == np.float32
    assert np.abs(logits - expected).max() < 0.02 * expected.std()
    oracle.reset(2, 80)
    for row in range(2):
        oracle.prefill(row, ids[row : row + 10])
    step = oracle.decode([1, 0], [ids[11], ids[10]])
    expected = [reference.logits(ids[1:12])[-1], reference.logits(ids[:11])[-1]]
    np.testing.assert_allclose(step, expected, atol=0.02 * np.std(expected))
    for engine in (oracle, reference):
        engine.close()


def test_fp32_has_no_attention_on_cuda_and_is_refused(tied, tmp_path):
    assert "fp32" not in TARGETS["cuda"].precisions
    with pytest.raises(SlmError) as error:
        export_model(tied, tmp_path / "x", target="cuda", precision="fp32")
    assert error.value.code == "E_USAGE" and "fp16" in error.value.message


def test_the_int4_method_that_needs_zeros_is_refused_for_cuda(tied, tmp_path):
    with pytest.raises(SlmError) as error:
        export_model(tied, tmp_path / "x", target="cuda", precision="int4", method="hqq")
    assert error.value.code == "E_USAGE" and "search" in error.value.message


def test_a_weight_that_fp16_cannot_hold_is_refused_and_nothing_is_left(tmp_path, tokenizer):
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        num_layers=1,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        intermediate_size=64,
        max_seq_len=64,
    )
    weights = random_weights(config, 1)
    name = "model.layers.0.mlp.down_proj.weight"
    weights[name] = weights[name].copy()
    weights[name][3, 5] = 7e4
    write_model(tmp_path / "modelo", config, tokenizer, weights)
    with pytest.raises(SlmError) as error:
        export_model(tmp_path / "modelo", tmp_path / "export", target="cuda", precision="fp16")
    assert error.value.code == "E_MODEL_INVALID" and "layers.0.down" in error.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["modelo"]


def test_symmetric_int4_is_better_than_q4_0s_rule_and_never_worse_than_its_own_plain_one():
    weights = np.random.default_rng(1).normal(size=(64, 256)).astype(np.float32)
    weights[0, :32] = 0

    def error(method):
        matrix = quantize_symmetric(weights, 32, method, None)
        assert matrix.zeros is None
        return float(np.linalg.norm(dequantize(matrix) - weights) / np.linalg.norm(weights))

    assert error("search") < 0.082 < error("rtn") < 0.09
    spiked = replace_column(weights)
    gram = np.diag(np.where(np.arange(256) % 32 == 0, 100.0, 1.0)).astype(np.float32)
    plain = dequantize(quantize_symmetric(spiked, 32, "search", gram)) - spiked
    weighed = dequantize(quantize_symmetric(spiked, 32, "kquant", gram)) - spiked
    assert np.sum(weighed**2 * np.diag(gram)) < np.sum(plain**2 * np.diag(gram))


def replace_column(weights):
    changed = weights.copy()
    changed[:, ::32] *= 3
    return changed
