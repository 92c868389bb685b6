"""The simulated CUDA provider catches what a card would: each test breaks a rule and must see its error."""

from __future__ import annotations

import gc
import threading

import numpy as np
import onnxruntime as ort
import pytest
from simulated_ort import Card, CardError, installed

from ptbr_slm.runtime.engines.onnx.bindings import GqaDecodeBinding
from ptbr_slm.runtime.engines.onnx.engine import OnnxEngine
from ptbr_slm.runtime.engines.onnx.kv_cache import KVCaches
from ptbr_slm.runtime.engines.onnx.providers import worker_thread
from ptbr_slm.runtime.engines.onnx.providers.device_memory import DeviceArray
from ptbr_slm.runtime.engines.onnx.providers.onnx_writer import Node, Tensor, model_bytes

CUDA = "CUDAExecutionProvider"


@pytest.fixture
def card():
    with installed(Card()) as card:
        yield card


@pytest.fixture
def doubling(card):
    """A session of y = x + x, (n,) float32, that captures."""
    ends = [Tensor(name, "float32", ("n",)) for name in "xy"]
    graph = model_bytes("twice", [Node("Add", ["x", "x"], ["y"])], ends[:1], ends[1:])
    return ort.InferenceSession(graph, providers=[(CUDA, {"enable_cuda_graph": "1"})], enable_fallback=0)


def bound(session, x, y, device="cuda"):
    io = session.io_binding()
    io.bind_input("x", device, 0, np.float32, (2,), x)
    io.bind_output("y", "cuda", 0, np.float32, (2,), y)
    return io


def captured(number: int):
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(number))
    return options


def values(*numbers: float) -> np.ndarray:
    return np.array(numbers, dtype=np.float32)


def test_memory_is_poison_until_it_is_written_and_no_host_memory(card):
    array = DeviceArray((2, 3), np.float16, "cuda")
    assert np.isnan(array.read()).all() and array.pointer > 1 << 56
    assert DeviceArray((1,), np.int64, "cuda").read()[0] == 0x7F7F7F7F7F7F7F7F
    array.upload(np.ones((2, 3), np.float16))
    assert array.read().sum() == 6 and card.counts["wait.read"] == 3
    with pytest.raises(RuntimeError, match="does not match"):
        array.upload(np.ones((2, 2), np.float16))


def test_a_host_address_bound_as_the_cards_is_an_illegal_access(doubling):
    host, y = values(1, 2), DeviceArray((2,), np.float32, "cuda")
    with pytest.raises(CardError, match="illegal memory access"):
        doubling.run_with_iobinding(bound(doubling, host.ctypes.data, y.pointer))


def test_a_device_address_bound_as_the_hosts_is_told(doubling):
    x, y = (DeviceArray((2,), np.float32, "cuda") for _ in range(2))
    with pytest.raises(CardError, match="host read device memory"):
        bound(doubling, x.pointer, y.pointer, "cpu")


def test_freed_memory_and_memory_past_an_end_are_illegal(doubling):
    x, y = (DeviceArray((2,), np.float32, "cuda") for _ in range(2))
    io = bound(doubling, x.pointer, y.pointer)
    past = bound(doubling, x.pointer + 4, y.pointer)
    with pytest.raises(CardError, match="outside an allocation"):
        doubling.run_with_iobinding(past, captured(-1))
    doubling.run_with_iobinding(io, captured(-1))
    del x
    gc.collect()
    with pytest.raises(CardError, match="freed memory"):
        doubling.run_with_iobinding(io, captured(-1))


def test_a_host_input_is_read_when_it_is_bound_not_when_it_is_run(doubling):
    host, y = values(1, 2), DeviceArray((2,), np.float32, "cuda")
    io = bound(doubling, host.ctypes.data, y.pointer, "cpu")
    host[:] = 100
    doubling.run_with_iobinding(io, captured(-1))
    assert y.read().tolist() == [2, 4]


def test_a_captured_run_uses_the_addresses_of_its_capture(doubling, card):
    x, y, other = (DeviceArray((2,), np.float32, "cuda") for _ in range(3))
    x.upload(values(1, 2))
    io = bound(doubling, x.pointer, y.pointer)
    doubling.run_with_iobinding(io, captured(1))
    assert card.counts["capture"] == 1 and y.read().tolist() == [2, 4]
    x.upload(values(5, 6))
    doubling.run_with_iobinding(io, captured(1))
    assert y.read().tolist() == [10, 12]
    other.upload(values(7, 8))
    doubling.run_with_iobinding(bound(doubling, other.pointer, y.pointer), captured(1))
    assert y.read().tolist() == [10, 12]  # not 14, 16
    del x
    gc.collect()
    with pytest.raises(CardError, match="freed memory"):
        doubling.run_with_iobinding(io, captured(1))


def test_another_thread_may_not_replay(doubling):
    x, y = (DeviceArray((2,), np.float32, "cuda") for _ in range(2))
    io = bound(doubling, x.pointer, y.pointer)
    doubling.run_with_iobinding(io, captured(1))
    found = []

    def run():
        try:
            doubling.run_with_iobinding(io, captured(1))
        except CardError as error:
            found.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert "another thread" in found[0]


def test_releasing_a_captured_graph_does_nothing_as_in_1_31_1(doubling, card):
    x, y, other = (DeviceArray((2,), np.float32, "cuda") for _ in range(3))
    x.upload(values(1, 2))
    doubling.run_with_iobinding(bound(doubling, x.pointer, y.pointer), captured(1))
    doubling.release_captured_graph(1)
    other.upload(values(7, 8))
    doubling.run_with_iobinding(bound(doubling, other.pointer, y.pointer), captured(1))
    assert y.read().tolist() == [2, 4] and card.counts["capture"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [({"nonsense": "1"}, 'Unknown provider option: "nonsense"'), ({"arena_extend_strategy": "x"}, "Failed")],
)
def test_options_are_those_of_1_31_1(card, options, message):
    ends = [Tensor(name, "float32", ("n",)) for name in "xy"]
    graph = model_bytes("twice", [Node("Add", ["x", "x"], ["y"])], ends[:1], ends[1:])
    with pytest.raises(RuntimeError, match=message):
        ort.InferenceSession(graph, providers=[(CUDA, options)], enable_fallback=0)


def test_the_arenas_take_what_the_real_ones_took(card):
    """48 buffers of 16 MB: 1,024 MB of Python's own arena, 768 of a session's that takes what is asked."""
    held = [card.python_arena.take(16 << 20) for _ in range(48)]
    assert card.python_arena.reserved == 1024 << 20
    exact = card.arena(doubling=False)
    held = [exact.take(16 << 20) for _ in range(48)]
    assert exact.reserved == 768 << 20
    for piece in held:
        exact.give_back(*piece)
    exact.shrink()
    assert exact.reserved == 0


def test_memory_ends_at_the_limit(card):
    card.limit = 1 << 20
    with pytest.raises(RuntimeError, match="Failed to allocate memory for requested buffer of size"):
        DeviceArray((1 << 20,), np.float32, "cuda")


@pytest.fixture
def mutated(cuda_exports, ids, monkeypatch):
    """Changes the engine, opens it, and returns the logits of a few captured steps."""

    def run(change):
        change(monkeypatch)
        engine = OnnxEngine(cuda_exports["fp16"])
        try:
            engine.reset(2, 640)
            found = [engine.prefill(slot, ids[slot : slot + 250]) for slot in range(2)]
            for step in range(9):
                found += list(engine.decode([0, 1], [ids[step], ids[step + 1]]))
            return np.array(found)
        finally:
            engine.close()

    return run


def _total_of_the_moment(patch):
    """total_sequence_length as in a plain run: a captured one keeps the first."""
    step = GqaDecodeBinding.step

    def changed(self):
        self._captured = False
        step(self)

    patch.setattr(GqaDecodeBinding, "step", changed)


def _total_too_short(patch):
    patch.setattr(OnnxEngine, "_warm_up", lambda self, check: None)
    init = GqaDecodeBinding.__init__

    def changed(self, *args):
        init(self, *args)
        self._total[...] = 100

    patch.setattr(GqaDecodeBinding, "__init__", changed)


def _runs_where_it_is_asked(patch):
    patch.setattr(worker_thread.WorkerThread, "run", lambda self, work: work())
    run = OnnxEngine.decode

    def elsewhere(self, slots, tokens, **options):
        found = []

        def work():
            try:
                found.append(run(self, slots, tokens, **options))
            except CardError as error:
                found.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if isinstance(found[0], CardError):
            raise found[0]
        return found[0]

    patch.setattr(OnnxEngine, "decode", elsewhere)


def _buffers_that_nobody_forgets(patch):
    patch.setattr(KVCaches, "_changed", lambda self: None)


def test_the_engine_runs_clean(card, mutated, cuda_exports, ids):
    found = mutated(lambda patch: None)
    assert np.isfinite(found).all() and card.counts["replay"] > 8


def test_a_length_told_to_a_captured_step_shows(card, mutated):
    with pytest.raises(CardError, match="when the graph was captured"):
        mutated(_total_of_the_moment)


def test_a_length_that_is_too_short_shows(card, mutated):
    with pytest.raises(CardError, match="below a row's length"):
        mutated(_total_too_short)


def test_steps_of_other_threads_show(card, mutated):
    with pytest.raises(CardError, match="another thread"):
        mutated(_runs_where_it_is_asked)


def test_bindings_over_buffers_that_went_show(card, mutated):
    with pytest.raises(CardError, match="freed memory"):
        mutated(_buffers_that_nobody_forgets)
