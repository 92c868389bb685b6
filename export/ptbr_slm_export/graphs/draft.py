"""The draft layer's graph, beside the model's: one guess a run, and nothing kept between two.

Inputs (N guesses at once, C the hidden size, K the tokens that can be guessed):
    states   float32 (N, 1, C)  the model's after its last norm, where `token` was chosen
    token    int64 (N, 1)       the token that was chosen there
Outputs:
    scores   float32 (N, 1, K)  of the ids in `tokens`, for the token after `token`
    tokens   int64 (K,)         rising

The model's own graph gives `states`, for the rows that `logits_index` names, as a further output. The
embedding is not stored again: the nodes that look it up are those of the model's graph, and read the very
bytes of its data file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

from ptbr_slm.storage.draft_folder import DraftFolder, Floats
from ptbr_slm_export.graphs.projections import FloatProjections, Projections, QuantizedProjections
from ptbr_slm_export.graphs.writer import MICROSOFT, GraphWriter
from ptbr_slm_export.llama import LlamaWeights
from ptbr_slm_export.quantization.quantizer import Quantizer
from ptbr_slm_export.quantization.recipe import Recipe

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64
STATES = "states"
_LAST_NORM, _EMBEDDED, _IDS = "norm", "embed", "input_ids"
"""Values of the model's graph."""
RECIPE = Recipe(bits=8, block=128)
"""Of the layer's matrices in int8 and int4 exports."""


def add_states(model: ir.Model, hidden_size: int) -> None:
    """Give a model's graph the output `states`, (B, K, C)."""
    graph = model.graph
    normed = next(value for node in graph for value in node.outputs if value.name == _LAST_NORM)
    states = ir.Value(
        name=STATES, type=ir.TensorType(FLOAT), shape=ir.Shape(("batch", "wanted", hidden_size))
    )
    graph.append(ir.node("Identity", inputs=[normed], outputs=[states], name=STATES))
    graph.outputs.append(states)


def build_draft_graph(main: Path, weights: LlamaWeights, draft: DraftFolder, precision: str) -> ir.Model:
    """The graph of the module's docstring. main: the model's graph as it was written, with its data file."""
    config = draft.config
    projections: Projections = (
        FloatProjections(weights) if precision == "fp32" else QuantizedProjections(weights, Quantizer(RECIPE))
    )
    writer = GraphWriter("ptbr-slm-draft")
    states = writer.input(STATES, FLOAT, ("guesses", 1, config.hidden_size))
    token = writer.input("token", INT64, ("guesses", 1))
    embedded = _lookup(writer, ir.load(main), token)  # (N, 1, C)

    def norm(x: ir.Value, name: str) -> ir.Value:
        gain = writer.constant(f"{name}.gain", read(name))
        attributes = {"epsilon": config.norm_eps, "axis": -1, "stash_type": 1}
        return writer.node("SimplifiedLayerNormalization", [x, gain], name, attributes=attributes)

    def read(name: str) -> Floats:
        return draft.read(name, config.shapes[name])

    def dense(x: ir.Value, name: str, half: slice | None = None) -> ir.Value:
        rows, columns = config.shapes[name]
        matrix: Callable[[], Floats] = lambda: read(name)  # noqa: E731
        if half is not None:
            rows, matrix = rows // 2, lambda: read(name)[half]
        label = "draft." + (name if half is None else f"{name}.{half.start or 0}")
        return projections.dense(writer, x, label, rows, columns, matrix)

    both = writer.node(
        "Concat", [norm(states, "state_norm"), norm(embedded, "token_norm")], "both", attributes={"axis": -1}
    )  # (N, 1, 2C)
    stream = dense(both, "fuse")  # (N, 1, C)
    normed = norm(stream, "feed_forward_norm")
    wide = config.intermediate_size
    gate, up = dense(normed, "gate_up", slice(0, wide)), dense(normed, "gate_up", slice(wide, 2 * wide))
    gate = writer.node("QuickGelu", [gate], "silu", domain=MICROSOFT, attributes={"alpha": 1.0})
    mixed = writer.node("Mul", [gate, up], "feed_forward")
    stream = writer.node("Add", [stream, dense(mixed, "down")], "stream")
    writer.output(dense(norm(stream, "norm"), "head"), "scores", FLOAT, ("guesses", 1, config.head_tokens))
    ids = writer.node("Identity", [writer.constant("tokens.ids", draft.tokens)], "tokens")
    writer.output(ids, "tokens", INT64, (config.head_tokens,))
    return writer.model()


def _lookup(writer: GraphWriter, main: ir.Model, token: ir.Value) -> ir.Value:
    """The model's own nodes from `input_ids` to its embedding, over `token` instead; (N, 1) -> (N, 1, C)."""
    known: dict[str, ir.Value] = {_IDS: token}

    def copied(value: ir.Value | None) -> ir.Value | None:
        if value is None or value.name is None:
            return None
        if value.name not in known:
            known[value.name] = made(value)
        return known[value.name]

    def made(value: ir.Value) -> ir.Value:
        node = value.producer()
        if node is None:  # an initializer, in the model's data file where it is large
            assert value.const_value is not None
            return writer.tensor(value.const_value)
        inputs = [copied(one) for one in node.inputs]
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        return writer.node(node.op_type, inputs, str(value.name), domain=node.domain, attributes=attributes)

    found = copied(next(v for node in main.graph for v in node.outputs if v.name == _EMBEDDED))
    assert found is not None
    return found


def write_draft_graph(model: ir.Model, folder: Path, name: str, data: str) -> None:
    """Write the graph into `folder`, its own matrices into `data`; the model's stay in the model's file."""
    own = [
        value
        for value in model.graph.initializers.values()
        if value.const_value is not None and not isinstance(value.const_value, ir.ExternalTensor)
    ]
    large = [value for value in own if value.const_value is not None and value.const_value.nbytes >= 1024]
    stored = ir.external_data.convert_tensors_to_external(
        [value.const_value for value in large if value.const_value is not None], folder, data
    )
    for value, tensor in zip(large, stored, strict=True):
        value.const_value = tensor
    ir.save(model, folder / name)
