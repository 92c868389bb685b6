"""The device's memory, tried on the CPU provider: the same code moves, grows and binds it on a card."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from ptbr_slm.runtime.onnx import devices
from ptbr_slm.runtime.onnx.device_memory import DeviceMemory
from ptbr_slm.runtime.onnx.devices import Place
from ptbr_slm.runtime.onnx.engine import OnnxEngine
from ptbr_slm.runtime.onnx.memory import HostMemory
from ptbr_slm.runtime.onnx.opened import Opened
from ptbr_slm.runtime.onnx.session import open_cpu
from ptbr_slm.runtime.onnx.tiny_graph import Node, Tensor, model_bytes

CPU = ["CPUExecutionProvider"]
SHAPE = (3, 2, 4, 16)
"""slots, heads, capacity, head_dim"""


@pytest.fixture(scope="module")
def device_engine(export_folder):
    """The fp32 engine, its tensors in memory that only ONNX Runtime sees."""

    def open_here(request):
        opened = open_cpu(request.graph, threads=1, spinning=False)
        return Opened(opened.session, DeviceMemory("cpu", CPU))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(devices._PLACES, "cpu", Place("cpu", CPU[0], open_here))
        engine = OnnxEngine(export_folder)
    yield engine
    engine.close()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_both_memories_move_and_grow_rows_alike(dtype):
    content = np.random.default_rng(1).normal(size=SHAPE).astype(dtype)
    host, device = HostMemory(), DeviceMemory("cpu", CPU)
    ours, theirs = content.copy(), device.zeros(SHAPE, dtype)
    assert not theirs.read().any() and theirs.nbytes == content.nbytes
    theirs.upload(content)
    for memory, buffer in ((host, ours), (device, theirs)):
        memory.copy_row(buffer, 0, 2, SHAPE[2])
        memory.swap_rows(buffer, 0, 1, SHAPE[2])
    np.testing.assert_array_equal(theirs.read(), ours)
    np.testing.assert_array_equal(
        device.grown(theirs, 5, 8, SHAPE[2]).read(), host.grown(ours, 5, 8, SHAPE[2])
    )


def test_a_small_graph_is_what_onnx_says_a_graph_is():
    ends = [Tensor(name, "float32", ("n", 4)) for name in "xy"]
    nodes = [Node("LeakyRelu", ["x"], ["z"], {"alpha": 0.5}), Node("Mul", ["z", "two"], ["y"])]
    model = onnx.load_from_string(
        model_bytes("tiny", nodes, ends[:1], ends[1:], {"two": np.float32([2.0]), "least": np.int64([-5])})
    )
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["LeakyRelu", "Mul"]
    assert onnx.numpy_helper.to_array(model.graph.initializer[1]).tolist() == [-5]


def test_a_text_is_the_same_through_growth_moves_and_prefixes(onnx_engine, device_engine, ids):
    """Two buckets, rows that change places, a copied prefix, a truncated one."""
    answers = []
    for engine in (onnx_engine, device_engine):
        engine.reset(4, engine.config.max_seq_len)
        found = [engine.prefill(row, ids[row * 7 : row * 7 + 250]) for row in range(4)]
        found += list(engine.decode([3, 1], [5, 6]))  # not neighbours: 2 changes places
        for token in ids[300:310]:
            found += list(engine.decode([0, 3], [token, token + 1]))
        engine.copy_prefix(3, 2, 100)
        engine.truncate(1, 40)
        found += list(engine.decode([1, 2], [7, 8]))
        found += [engine.extend(0, ids[:300])[-1], engine.logits(ids[:20])[-1]]
        answers.append(np.array(found))
        assert engine.kv_bytes == 2 * engine.config.num_layers * 8 * 640 * engine.config.kv_size * 4
    np.testing.assert_array_equal(*answers)


def test_what_a_binding_reads_is_what_the_host_wrote_last(device_engine, onnx_engine, ids):
    for engine in (device_engine, onnx_engine):
        engine.reset(1, 64)
        engine.prefill(0, ids[:9])
    for token in (3, 200, 3):
        np.testing.assert_array_equal(device_engine.decode([0], [token]), onnx_engine.decode([0], [token]))
