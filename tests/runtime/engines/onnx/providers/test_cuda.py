"""The CUDA provider's session without a card: its options, and every way in which it might fall back unseen.

The whole course of `open_cuda` runs here on the CPU provider under CUDA's name; tests/runtime/test_gpu.py is
the real thing.
"""

from __future__ import annotations

import json
import threading
from collections import Counter

import numpy as np
import onnxruntime as ort
import pytest
from near_ties import FP16, assert_same_but_for_near_ties
from refusals import refusal

from ptbr_slm.runtime.engines.onnx import kv_cache
from ptbr_slm.runtime.engines.onnx.engine import OnnxEngine
from ptbr_slm.runtime.engines.onnx.providers import cuda, gpu_libraries, registry
from ptbr_slm.runtime.engines.onnx.providers.cuda import profiled_nodes, require_whole
from ptbr_slm.runtime.engines.onnx.providers.device_memory import DeviceMemory
from ptbr_slm.runtime.engines.onnx.providers.gpu_libraries import (
    DRIVER,
    install_line,
    missing_libraries,
    provider_faults,
)
from ptbr_slm.runtime.engines.onnx.providers.registry import Provider, choose_provider
from ptbr_slm.runtime.model import Model

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.fixture
def pretended(monkeypatch):
    """The CPU provider under the name of CUDA's; what sessions were asked for is noted."""
    asked = []
    session = ort.InferenceSession

    def note(graph, options, providers, **more):
        asked.append((options, providers))
        return session(graph, options, providers=[CPU])

    monkeypatch.setattr(ort, "InferenceSession", note)
    monkeypatch.setattr(cuda, "PROVIDER", CPU)
    monkeypatch.setattr(cuda, "DeviceMemory", lambda _, *rest: DeviceMemory("cpu", *rest))
    monkeypatch.setitem(registry._PROVIDERS, "cuda", Provider("cuda", CPU, registry._PROVIDERS["cuda"].open))
    return asked


def test_the_provider_gets_the_options_that_fp16_and_memory_need(monkeypatch):
    monkeypatch.delenv("PTBR_SLM_SDPA_KERNEL", raising=False)
    options = cuda.provider_options(graphs=True)
    assert options == {
        "arena_extend_strategy": "kSameAsRequested",
        "enable_skip_layer_norm_strict_mode": "1",
        "enable_cuda_graph": "1",
    }
    assert cuda.provider_options(graphs=False)["enable_cuda_graph"] == "0"
    monkeypatch.setenv("PTBR_SLM_SDPA_KERNEL", "math")
    assert cuda.provider_options(graphs=False)["sdpa_kernel"] == "16"
    monkeypatch.setenv("PTBR_SLM_SDPA_KERNEL", "rápido")
    assert refusal(cuda.provider_options, graphs=True).code == "E_CONFIG"


@pytest.mark.parametrize("fused", [True, False])
def test_the_fused_kernel_is_asked_for_where_weights_are_quantised(tmp_path, fused):
    options = cuda.session_options(tmp_path, fused=fused)
    try:
        found = options.get_session_config_entry("ep.cuda.fpa_intb_gemm")
    except RuntimeError:  # an entry that was never set
        found = None
    assert found == ("1" if fused else None)


def test_opening_runs_a_step_checks_where_it_ran_and_warms_up(
    half_folder, pretended, ids, monkeypatch, tmp_path
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    engine = OnnxEngine(half_folder, "cuda")
    assert engine.device == "cuda"
    facts = engine.describe()
    assert facts["cuda_graph"] is True and facts["provider"] == CPU and "device_name" in facts
    model_options, model_providers = pretended[0]
    assert model_providers[0][1]["enable_skip_layer_norm_strict_mode"] == "1"
    assert not model_options.has_providers()
    assert list(tmp_path.iterdir()) == []  # the profile is gone
    assert engine.kv_bytes == 2 * 2 * 256 * engine.config.kv_size * 2  # half floats, one bucket
    engine.reset(1, 64)
    greedy = [int(engine.prefill(0, ids[:8]).argmax())]
    for _ in range(5):
        greedy.append(int(engine.decode([0], greedy[-1:])[0].argmax()))
    engine.close()
    oracle = OnnxEngine(half_folder, oracle=True)
    oracle.reset(1, 64)
    expected = [int(oracle.prefill(0, ids[:8]).argmax())]
    for _ in range(5):
        expected.append(int(oracle.decode([0], expected[-1:])[0].argmax()))
    assert greedy == expected
    oracle.close()


def test_cuda_graphs_can_be_left_out(half_folder, pretended, monkeypatch):
    monkeypatch.setenv("PTBR_SLM_CUDA_GRAPH", "0")
    engine = OnnxEngine(half_folder)
    assert engine.describe()["cuda_graph"] is False
    assert pretended[0][1][0][1]["enable_cuda_graph"] == "0"
    engine.close()
    engine = OnnxEngine(half_folder, cuda_graph=True)
    assert engine.describe()["cuda_graph"] is True
    engine.close()


def test_a_node_that_ran_elsewhere_closes_the_engine(half_folder, pretended, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(
        cuda, "profiled_nodes", lambda _: Counter({(CPU, "MatMul"): 9, (CPU, "MemcpyToHost"): 2})
    )
    error = refusal(OnnxEngine, half_folder)
    assert error.code == "E_PROVIDER" and "MemcpyToHost (2)" in error.message
    assert list(tmp_path.iterdir()) == []


def test_a_provider_that_gave_way_to_another_is_named_with_what_is_missing(
    half_folder, pretended, monkeypatch
):
    """ONNX Runtime only warns on stderr, and goes on with the CPU."""
    monkeypatch.setattr(cuda, "PROVIDER", CUDA)
    monkeypatch.setattr(cuda, "missing_libraries", lambda _: ("libcublas.so.13", "libcudart.so.13"))
    error = refusal(OnnxEngine, half_folder)
    assert error.code == "E_PROVIDER" and "libcublas.so.13, libcudart.so.13" in error.message
    assert "onnxruntime-gpu[cuda,cudnn]==1.31.1" in error.hint
    monkeypatch.setattr(cuda, "missing_libraries", lambda _: (DRIVER,))
    assert "Accelerator" in refusal(OnnxEngine, half_folder).hint
    monkeypatch.setattr(cuda, "missing_libraries", lambda _: ())
    assert refusal(OnnxEngine, half_folder).code == "E_PROVIDER"


def test_a_card_without_kernels_is_named(half_folder, pretended, monkeypatch):
    """A P100: onnxruntime-gpu 1.31 has code from sm_75 on."""

    def fail(*_):
        raise RuntimeError("CUDA error cudaErrorNoKernelImageForDevice: no kernel image is available")

    monkeypatch.setattr("ptbr_slm.runtime.engines.onnx.bindings.GqaPrefillBinding.run", fail)
    error = refusal(OnnxEngine, half_folder)
    assert error.code == "E_PROVIDER" and "sm_75" in error.message and "T4" in error.hint


def test_the_cards_memory_running_out_is_an_error_about_memory(half_folder, pretended, monkeypatch, ids):
    engine = OnnxEngine(half_folder)

    def fail(*_):
        raise RuntimeError("CUDA failure 2: out of memory ; GPU=0")

    monkeypatch.setattr("ptbr_slm.runtime.engines.onnx.bindings.GqaPrefillBinding.run", fail)
    assert refusal(engine.logits, ids[:5]).code == "E_MEMORY"
    engine.close()


def test_buffers_that_do_not_fit_the_card_are_an_error_about_memory(half_folder, pretended, monkeypatch, ids):
    engine = OnnxEngine(half_folder)
    engine.reset(1, 640)

    def fail(*_):
        raise RuntimeError("Failed to allocate memory for requested buffer of size 123")

    monkeypatch.setattr(DeviceMemory, "grown", fail)
    assert refusal(engine.prefill, 0, ids[:300]).code == "E_MEMORY"
    assert refusal(engine.open_slot).code == "E_MEMORY"
    with monkeypatch.context() as patch:
        patch.setattr(DeviceMemory, "zeros", fail)
        assert refusal(engine.reset, 2, 640).code == "E_MEMORY"
    monkeypatch.undo()
    slot = engine.open_slot()  # what is left goes on
    assert np.isfinite(engine.prefill(slot, ids[:300])).all()
    engine.close()


def test_buffers_that_grew_half_way_leave_no_stale_address(half_folder, pretended, monkeypatch, ids):
    engine = OnnxEngine(half_folder)
    engine.reset(1, 640)
    expected = engine.prefill(0, ids[:100]).copy()
    grown, calls = DeviceMemory.grown, iter(range(9))

    def fail_later(*args):
        if next(calls) == 2:
            raise RuntimeError("CUDA failure 2: out of memory")
        return grown(*args)

    monkeypatch.setattr(DeviceMemory, "grown", fail_later)
    assert refusal(engine.prefill, 0, ids[:300]).code == "E_MEMORY"
    monkeypatch.undo()
    engine.truncate(0, 99)
    np.testing.assert_allclose(engine.decode([0], [ids[99]])[0], expected, atol=0.05)
    assert np.isfinite(engine.prefill(0, ids[:300])).all()
    engine.close()


def test_a_profile_names_every_node_with_its_provider(export_folder, tmp_path):
    options = ort.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "p")
    options.log_severity_level = 3
    session = ort.InferenceSession(export_folder / "model.onnx", options, providers=[CPU])
    cache = np.zeros((1, 2, 16, 16), np.float32)
    feeds = {value.name: cache for value in session.get_inputs() if value.name.startswith("past")}
    session.run(
        None,
        {
            "input_ids": np.array([[5, 6]]),
            "seqlens_k": np.array([1], np.int32),
            "total_sequence_length": np.array(2, np.int32),
            "logits_index": np.array([[1]]),
            **feeds,
        },
    )
    nodes = profiled_nodes(tmp_path / session.end_profiling())
    assert nodes[CPU, "GroupQueryAttention"] == 2 and {provider for provider, _ in nodes} == {CPU}
    require_whole(nodes, CPU, export_folder)
    error = refusal(require_whole, nodes, CUDA, export_folder)
    assert error.code == "E_PROVIDER" and "MatMul" in error.message


def test_copies_and_an_empty_profile_are_no_whole_run(tmp_path):
    nodes = Counter({(CUDA, "MatMul"): 60, (CUDA, "MemcpyFromHost"): 1})
    assert "1 de 61" in refusal(require_whole, nodes, CUDA, tmp_path).message
    assert refusal(require_whole, Counter(), CUDA, tmp_path).code == "E_PROVIDER"
    require_whole(Counter({(CUDA, "MatMul"): 60}), CUDA, tmp_path)
    (tmp_path / "p.json").write_text(
        json.dumps(
            [
                {"cat": "Session", "name": "model_run", "args": {}},
                {"cat": "Node", "name": "a_kernel_time", "args": {"provider": CUDA, "op_name": "Mul"}},
                {"cat": "Node", "name": "a_kernel_time", "args": {"provider": CUDA, "op_name": "Mul"}},
                {"cat": "Node", "name": "b_kernel_time", "args": {"provider": CUDA, "op_name": "Mul"}},
            ]
        )
    )
    assert profiled_nodes(tmp_path / "p.json") == {(CUDA, "Mul"): 2}


def test_libraries_are_looked_for_by_the_builds_cuda():
    def only(*present):
        def load(name):
            if name not in present:
                raise OSError(f"{name}: cannot open shared object file")

        return load

    assert missing_libraries("", only()) == ()
    assert missing_libraries("13.0", only())[0] == DRIVER
    assert "libcublas.so.13" in missing_libraries("13.0", only(DRIVER))
    assert "libcublas.so.12" in missing_libraries("12.8", only(DRIVER))
    everything = ("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10")
    assert missing_libraries("13.0", only(DRIVER, *everything, "libcufft.so.12")) == ()
    assert "tensorrt-cu13==10.16" in install_line("tensorrt") and "tensorrt" not in install_line("cuda")


def test_a_provider_is_tried_with_a_graph_of_one_node(monkeypatch):
    """`doctor` asks this: a provider that is listed may still not run."""
    assert provider_faults() == {} or CUDA in ort.get_available_providers()
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(ort, "cuda_version", "13.0")
    monkeypatch.setattr(gpu_libraries, "missing_libraries", lambda _: ("libcublas.so.13",))
    assert provider_faults() == {CUDA: "faltam libcublas.so.13"}
    monkeypatch.setattr(gpu_libraries, "missing_libraries", lambda _: ())
    session = ort.InferenceSession

    class Broken(session):
        def run(self, *_):
            raise RuntimeError("no kernel image is available for execution on the device")

    monkeypatch.setattr(gpu_libraries, "CUDA", CPU)
    monkeypatch.setattr(ort, "InferenceSession", Broken)
    assert "no kernel image" in provider_faults()[CPU]
    monkeypatch.setattr(ort, "InferenceSession", session)
    assert provider_faults() == {}


def test_preloading_prints_nothing(capsys):
    class Runtime:
        @staticmethod
        def preload_dlls():
            print("Failed to load libcublas.so.13")

    gpu_libraries.preload(Runtime)
    gpu_libraries.preload(object())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("asked", "target", "has_cuda", "word"),
    [
        ("cuda", "cpu", False, "não tem CUDA"),
        ("cuda", "cpu", True, "é para CPU"),
        ("cpu", "cuda", True, "lento demais"),
        ("cpu", "cuda", False, "lento demais"),
        ("auto", "cuda", False, "CUDAExecutionProvider"),
        ("cuda", "cuda", False, "CUDAExecutionProvider"),
        ("auto", "tpu", True, "esta versão"),
    ],
)
def test_no_export_runs_where_it_was_not_made_for(monkeypatch, asked, target, has_cuda, word):
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU] if has_cuda else [CPU])
    error = refusal(choose_provider, asked, target)
    assert error.code == "E_PROVIDER" and word in error.message


def test_an_export_runs_where_it_was_made_for(monkeypatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    assert choose_provider("auto", "cuda").name == CUDA
    assert choose_provider("cuda", "cuda").device == "cuda"
    assert choose_provider("auto", "cpu").name == CPU  # also where there is a card
    assert choose_provider("cpu", "cuda", oracle=True).name == CPU


def test_all_runs_happen_on_one_thread_whoever_asks(half_folder, pretended, monkeypatch, ids):
    """ONNX Runtime captures a step once for each thread that runs it."""
    seen = set()
    collection = ort.capi.onnxruntime_inference_collection.InferenceSession
    run = collection.run_with_iobinding

    def note(session, *args):
        seen.add(threading.current_thread().name)
        run(session, *args)

    monkeypatch.setattr(collection, "run_with_iobinding", note)
    with Model(half_folder) as model:
        found = []
        asking = [
            threading.Thread(
                target=lambda: found.append(model.generate_detailed("O Brasil", temperature=0.0))
            )
            for _ in range(3)
        ]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        assert len(found) == 3
        for text in found[1:]:
            assert_same_but_for_near_ties(model, "O Brasil", text, found[0], FP16, temperature=0.0)
    assert seen == {"ptbr-slm-gpu_0"}


def test_captured_steps_keep_their_buffers_between_texts(half_folder, pretended, monkeypatch, ids):
    """New buffers would need new captures, again and again in a server that is idle now and then."""
    monkeypatch.setattr(kv_cache, "IDLE_BYTES", 0)
    bytes_after = {}
    for graphs in (True, False):
        engine = OnnxEngine(half_folder, cuda_graph=graphs)
        slots = [engine.open_slot() for _ in range(3)]
        for slot in slots:
            engine.prefill(slot, ids[:300])
            engine.close_slot(slot)
        engine.open_slot()
        bytes_after[graphs] = engine.kv_bytes
        engine.close()
    assert bytes_after[True] == 8 * bytes_after[False]  # 4 slots of 512 tokens, 1 of 256
