"""The `genai` graph: the layers of `gqa` behind the inputs that onnxruntime-genai feeds.

It never feeds seqlens_k, total_sequence_length or logits_index, but a mask of the tokens seen so far:
    input_ids        int64 (B, S)
    attention_mask   int64 (B, T)   1 where a token stands, 0 for the padding on the right of a shorter row
and reads logits float32 (B, 1, V). A few integer nodes make the three from the mask. The row whose logits
count is min(sum of the mask, S) - 1 within the chunk: the last token of each prompt when it is read, 0 while
decoding. genai's own graphs give the logits of every position, or take the last one and so that of the
padding (src/python/py/models/builders/base.py of onnxruntime-genai 0.18, `prune_lm_head`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import os_errors
from ptbr_slm.runtime.load import open_engine
from ptbr_slm.storage.atomic import scratch_folder
from ptbr_slm.storage.manifest import read_manifest, write_manifest
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.text import utf8_folder
from ptbr_slm_export.graphs.gqa import FLOAT, INT32, INT64, LlamaGraph
from ptbr_slm_export.graphs.projections import Projections
from ptbr_slm_export.llama import LlamaWeights

_MADE = ("seqlens_k", "total_sequence_length", "logits_index")
"""What the mask is turned into."""


def build_genai_graph(config: ModelConfig, weights: LlamaWeights, projections: Projections) -> ir.Model:
    """The model of the module's docstring."""
    return _GenaiGraph(config, weights, projections, FLOAT).build()


class _GenaiGraph(LlamaGraph):
    name = "ptbr-slm-genai"
    wanted = 1

    def positions(self, input_ids: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """The three from attention_mask, (B, T)."""
        writer = self.writer
        mask = writer.input("attention_mask", INT64, ("batch", "total"))
        one = writer.constant("one", np.array([1], dtype=np.int64))
        sums = writer.node("ReduceSum", [mask, one], "mask.sum", attributes={"keepdims": 0})  # (B,)
        last = writer.node("Sub", [sums, one], "mask.last")  # (B,)
        seqlens_k = writer.node("Cast", [last], "seqlens_k", attributes={"to": INT32})
        total = writer.node("Shape", [mask], "mask.total", attributes={"start": 1, "end": 2})  # (1,)
        total = writer.node("Squeeze", [total], "mask.total.scalar")
        total = writer.node("Cast", [total], "total_sequence_length", attributes={"to": INT32})
        new = writer.node("Shape", [input_ids], "chunk", attributes={"start": 1, "end": 2})  # (1,)
        end = writer.node("Sub", [new, one], "chunk.last")  # (1,)
        row = writer.node("Min", [last, end], "mask.row")  # (B,)
        return seqlens_k, total, writer.node("Unsqueeze", [row, one], "logits_index")  # (B, 1)


@contextmanager
def gqa_copy(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` with a copy of its graph and weights, and the inputs of `gqa`.

    So that what was written can be asked everything that `verification` asks: every position's logits, rows
    one by one, chunks. What the mask is turned into is checked apart, by `check_mask`.
    """
    with scratch_folder(folder.resolve().parent, "gqa") as copy:
        for file in folder.iterdir():
            if file.name not in ("model.onnx", "manifest.json"):
                with os_errors(copy):  # copied: onnx-ir takes a second link to the weights for an attack
                    shutil.copyfile(file, copy / file.name)
        model = ir.load(folder / "model.onnx")
        _feed(model.graph)
        ir.save(model, copy / "model.onnx")
        facts = read_manifest(folder, hashes=False).extra
        write_manifest(copy, "export", **{**facts, "target": "cpu", "flavour": "gqa"})
        yield copy


def _feed(graph: ir.Graph) -> None:
    """Make inputs of the three values, and drop the nodes that made them."""
    values = {name: _value(graph, name) for name in _MADE}
    for name, value in values.items():
        shape = {"seqlens_k": ("batch",), "total_sequence_length": (), "logits_index": ("batch", "wanted")}
        fed = ir.Value(
            name=name,
            type=ir.TensorType(INT64 if name == "logits_index" else INT32),
            shape=ir.Shape(shape[name]),
        )
        producer = value.producer()
        assert producer is not None
        ir.convenience.replace_all_uses_with(value, fed)
        graph.remove(producer, safe=True)
        graph.inputs.append(fed)
    graph.inputs.remove(next(value for value in graph.inputs if value.name == "attention_mask"))
    while unused := [
        node for node in graph if not any(out.uses() or out.is_graph_output() for out in node.outputs)
    ]:
        for node in unused:
            graph.remove(node, safe=True)
    logits = next(value for value in graph.outputs if value.name == "logits")
    assert logits.shape is not None
    logits.shape = ir.Shape(("batch", "wanted", logits.shape[2]))


def _value(graph: ir.Graph, name: str) -> ir.Value:
    return next(output for node in graph for output in node.outputs if output.name == name)


def check_mask(folder: Path, gqa: Path) -> float:
    """The largest logit difference between the graph, read through a mask, and the rows of `gqa_copy`'s.

    A ragged batch of three, padded on the right, is read at once, then two tokens more of each row. In
    standard deviations of the logits; infinite for what is not a number.
    """
    import onnxruntime as ort

    config = ModelFolder(folder).config
    length = min(7, config.max_seq_len - 2)
    lengths = [length, max(1, length - 3), max(1, length - 5)]
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (3, length + 2))
    with utf8_folder(folder) as named:
        session = ort.InferenceSession(str(named / "model.onnx"), providers=["CPUExecutionProvider"])
    shape = (3, config.num_kv_heads, length + 2, config.head_dim)
    past = {
        f"past_key_values.{layer}.{part}": np.zeros(shape, np.float32)
        for layer in range(config.num_layers)
        for part in ("key", "value")
    }
    engine, worst, spread = open_engine(gqa, "cpu"), 0.0, 0.0
    engine.reset(3, length + 2)
    mask = np.array([[int(at < size) for at in range(length)] for size in lengths], dtype=np.int64)
    chunk = ids[:, :length].astype(np.int64)
    for step in range(3):
        logits, *present = session.run(None, {"input_ids": chunk, "attention_mask": mask, **past})
        for row, size in enumerate(lengths):
            new = ids[row, :size] if step == 0 else chunk[row]
            alone = engine.prefill(row, new.tolist())  # (V,)
            difference = np.nan_to_num(np.abs(alone - logits[row, 0]), nan=np.inf)
            worst, spread = max(worst, float(difference.max())), max(spread, float(alone.std()))
        past = dict(zip(past, present, strict=True))
        mask = np.concatenate([mask, np.ones((3, 1), np.int64)], axis=1)
        chunk = ids[:, length + min(step, 1)][:, None].astype(np.int64)
    engine.close()
    return worst / spread if spread else worst
