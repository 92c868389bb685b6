"""The `std` graph is made of what TensorRT's parser lists, within the limits that it documents."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from ptbr_slm_export.graphs.projections import StandardProjections
from ptbr_slm_export.graphs.std import build_std_graph
from ptbr_slm_export.llama import LlamaWeights

from ptbr_slm.config import ModelConfig

TABLE = json.loads((Path(__file__).parent / "tensorrt_operators.json").read_text(encoding="utf-8"))
TIED = ModelConfig(
    vocab_size=97,
    hidden_size=64,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    intermediate_size=96,
    max_seq_len=80,
)
MODELS = {
    "tied": TIED,
    "untied": replace(TIED, tie_embeddings=False),
    "qk_norm": replace(TIED, qk_norm=True),
}
CAPACITY = 64


class Zeros:
    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros(shape, dtype=np.float32)


class Built:
    """A graph with the type and shape of every value."""

    def __init__(self, config: ModelConfig, dtype: ir.DataType, *, fused: bool) -> None:
        weights = LlamaWeights(config, Zeros().read)
        projections = StandardProjections(weights, dtype)
        model = build_std_graph(config, weights, projections, dtype=dtype, capacity=CAPACITY, fused=fused)
        self.model = ir.to_proto(model)
        graph = onnx.shape_inference.infer_shapes(self.model, check_type=True, strict_mode=True).graph
        self.nodes = graph.node
        self.inputs = {value.name for value in graph.input}
        self.outputs = {value.name for value in graph.output}
        self.constants = {tensor.name for tensor in graph.initializer}
        self.types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        self.shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
        for value in (*graph.input, *graph.output, *graph.value_info):
            self.types[value.name] = value.type.tensor_type.elem_type
            dims = value.type.tensor_type.shape.dim
            self.shapes[value.name] = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in dims]

    def of(self, kind: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if node.op_type == kind]

    def type_name(self, value: str) -> str:
        return onnx.TensorProto.DataType.Name(self.types[value])


WAYS = [(name, kind, fused) for name in MODELS for kind in ("FLOAT", "FLOAT16") for fused in (False, True)]


@pytest.fixture(
    scope="module", params=WAYS, ids=lambda way: f"{way[0]}-{way[1]}-{'node' if way[2] else 'products'}"
)
def built(request) -> Built:
    name, kind, fused = request.param
    made = Built(MODELS[name], ir.DataType[kind], fused=fused)
    made.kind, made.fused = kind, fused
    return made


def test_the_graph_is_valid_onnx_of_an_opset_the_parser_takes(built):
    onnx.checker.check_model(built.model, full_check=True)
    assert {o.domain: o.version for o in built.model.opset_import} == {"": 24}  # no com.microsoft at all


def test_every_operator_and_element_type_is_in_the_parsers_list(built):
    for node in built.nodes:
        assert node.op_type in TABLE["operators"]
        content = node.input[1] if node.op_type == "Where" else node.input[0]  # its first is the condition
        assert built.type_name(content) in TABLE["types"][node.op_type]
    assert {built.type_name(node.output[0]) for node in built.of("Cast")} <= set(TABLE["types"]["Cast"])


def test_attention_is_four_dimensional_without_past_present_or_lengths_under_one_shared_mask(built):
    nodes = built.of("Attention")
    assert len(nodes) == (2 if built.fused else 0)
    for node in nodes:
        assert len(node.input) == 4 and len(node.output) == 1 and not node.attribute
        assert all(len(built.shapes[name]) == 4 for name in (*node.input, *node.output))
        assert built.shapes[node.input[0]][1:] == [4, "sequence", 16]
        assert built.shapes[node.input[1]][1:] == [2, CAPACITY, 16]
    masked = built.of("Where")
    assert len(masked) == (0 if built.fused else 2)
    assert {node.input[3] for node in nodes} | {node.input[0] for node in masked} == {"mask"}
    assert built.type_name("mask") == "BOOL" and built.shapes["mask"][1::2] == [1, CAPACITY]


def test_the_caches_are_inputs_of_a_static_length_scattered_along_it_straight_into_outputs(built):
    nodes = built.of("TensorScatter")
    assert len(nodes) == 4
    for node in nodes:
        past, update, places = node.input
        assert {a.name: a.i for a in node.attribute} == {"axis": -2}
        assert past in built.inputs and node.output[0] in built.outputs
        assert past.replace("past_key_values", "present") == node.output[0]
        assert built.shapes[past] == built.shapes[node.output[0]] == ["batch", 2, CAPACITY, 16]
        assert len(built.shapes[update]) == 4
        assert places == "write_indices"
        assert built.type_name(past) == built.type_name(update) == built.kind


def test_written_out_attention_keeps_four_dimensions_and_scales_before_it_multiplies(built):
    for node in built.of("Softmax"):
        assert built.shapes[node.input[0]][1::2] == [4, CAPACITY]
        assert built.type_name(node.input[0]) == built.kind
    products = [node for node in built.of("MatMul") if node.name.endswith("attention.products")]
    assert len(products) == (0 if built.fused else 2)
    makers = {node.output[0]: node for node in built.nodes}
    for node in products:
        scaled = makers[makers[node.input[0]].input[0]]
        assert (scaled.op_type, scaled.input[1]) == ("Mul", "attention.scale")
        assert built.shapes[node.input[1]][1:] == [2, 16, CAPACITY]
        assert len(built.shapes[node.output[0]]) == 4


def test_the_rotation_takes_int64_positions_and_no_shape_is_computed(built):
    for node in built.of("RotaryEmbedding"):
        assert node.input[3] == "position_ids" and built.type_name("position_ids") == "INT64"
    for node in (*built.of("Reshape"), *built.of("Unsqueeze"), *built.of("Split")):
        assert node.input[1] in built.constants
    assert not {"Shape", "Range", "Expand", "If", "Loop"} & {node.op_type for node in built.nodes}


def test_stream_norms_and_logits_are_fp32_and_products_are_in_the_asked_type(built):
    for kind, wanted in (("MatMul", built.kind), ("RMSNormalization", "FLOAT"), ("Add", "FLOAT")):
        for node in built.of(kind):
            assert {built.type_name(name) for name in (*node.input, *node.output)} == {wanted}
    assert built.type_name("logits") == "FLOAT"
    assert bool(built.of("Cast")) == (built.kind == "FLOAT16")


def test_only_batch_sequence_and_wanted_are_free_dimensions(built):
    free = {dim for name in built.inputs for dim in built.shapes[name] if isinstance(dim, str)}
    assert free == {"batch", "sequence", "wanted"}


def test_a_tied_table_is_stored_once(built):
    large = [name for name in built.constants if sorted(built.shapes[name]) == [64, 97]]
    assert len(large) == (2 if "head.weight" in built.constants else 1)
