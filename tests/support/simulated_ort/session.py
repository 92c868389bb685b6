"""Replaces the compiled InferenceSession and SessionIOBinding: runs, captured graphs, profiles."""

from __future__ import annotations

import ctypes
import json
import math
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simulated_ort.card import FIRST_ADDRESS, Card, CardError, illegal
from simulated_ort.graph import GraphFacts
from simulated_ort.values import CPU, DeviceValue

CUDA_PROVIDER, CPU_PROVIDER = "CUDAExecutionProvider", "CPUExecutionProvider"

OPTIONS = frozenset(
    (
        "device_id",
        "has_user_compute_stream",
        "user_compute_stream",
        "gpu_mem_limit",
        "arena_extend_strategy",
        "cudnn_conv_algo_search",
        "cudnn_conv_use_max_workspace",
        "cudnn_conv1d_pad_to_nc1d",
        "do_copy_in_default_stream",
        "gpu_external_alloc",
        "gpu_external_free",
        "gpu_external_empty_cache",
        "enable_cuda_graph",
        "tunable_op_enable",
        "tunable_op_tuning_enable",
        "tunable_op_max_tuning_duration_ms",
        "enable_skip_layer_norm_strict_mode",
        "prefer_nhwc",
        "use_ep_level_unified_stream",
        "use_tf32",
        "fuse_conv_bias",
        "sdpa_kernel",
        "enable_cudnn",
        "external_data_loader_reading_threads",
    )
)
"""What onnxruntime-gpu 1.31.1 takes: `get_provider_options` of a session, and what opens besides."""

_STRATEGIES = ("kNextPowerOfTwo", "kSameAsRequested")
_NO_FALLBACK = "session.disable_cpu_ep_fallback"
_PLAIN_RUNS = 2
"""Runs of a graph id before it is captured, within the first call (`InferenceSession::Run` calls itself)."""


@dataclass(frozen=True)
class Bound:
    """One input or output of a binding."""

    name: str
    on_card: bool
    dtype: np.dtype
    shape: tuple[int, ...]
    pointer: int
    nbytes: int


class Session:
    """`onnxruntime_pybind11_state.InferenceSession`: simulated where the CUDA provider is asked for."""

    def __init__(
        self, card: Card, compiled: Any, options: Any, model: Any, is_path: bool, config: bool
    ) -> None:
        self._card, self._compiled = card, compiled
        self._model, self._is_path, self._asked = model, is_path, options
        self._make = lambda options: compiled.InferenceSession(options, model, is_path, config)
        self._captured: dict[int, tuple[object, Any]] = {}
        self.simulated = False

    def initialize_session(self, providers: list[str], options: list[Any], disabled: set[str]) -> None:
        if CUDA_PROVIDER not in providers:
            self._real = self._make(self._asked)
            self._real.initialize_session(providers, options, disabled)
            return
        given = dict(options[providers.index(CUDA_PROVIDER)]) if options else {}
        _check_options(given)
        self._options = given
        astray = CPU_PROVIDER in providers or self._card.astray in GraphFacts(self._model).operators
        if astray and _entry(self._asked, _NO_FALLBACK) == "1":
            raise RuntimeError(
                "[ONNXRuntimeError] : 1 : FAIL : This session contains graph nodes that are assigned to the "
                "default CPU EP, but fallback to CPU EP has been explicitly disabled by the user."
            )
        self._real = self._make(_for_the_cpu(self._asked))
        self._real.initialize_session([CPU_PROVIDER], [{}], disabled)
        if self._card.absent:  # ONNX Runtime warns on stderr and goes on
            return
        self.simulated = True
        self.facts = GraphFacts(self._model)
        self.captures = given.get("enable_cuda_graph", "0") in ("1", "True", "true")
        self._fused = _entry(self._asked, "ep.cuda.fpa_intb_gemm") == "1" and self.facts.quantized
        arena = self.arena = self._card.arena(
            doubling=given.get("arena_extend_strategy", "kNextPowerOfTwo") == "kNextPowerOfTwo"
        )
        card, weights = self._card, self.facts.weight_bytes
        card.reserve_weights(weights)

        def gone() -> None:
            card.weights -= weights
            arena.close()

        weakref.finalize(self, gone).atexit = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_providers(self) -> list[str]:
        return [CUDA_PROVIDER, CPU_PROVIDER] if self.simulated else self._real.get_providers()

    def get_provider_options(self) -> dict[str, Any]:
        return (
            {CUDA_PROVIDER: self._options, CPU_PROVIDER: {}}
            if self.simulated
            else self._real.get_provider_options()
        )

    def create_ortvalue_from_shape_and_type(self, shape: Any, dtype: Any, device: Any) -> Any:
        if not self.simulated or device.device_type() == CPU:
            return self._real.create_ortvalue_from_shape_and_type(shape, dtype, device)
        value = DeviceValue(self._card, self.arena, shape, dtype)
        value.session = self  # keeps the allocator's session
        return value

    def end_profiling(self) -> str:
        path = self._real.end_profiling()
        if self.simulated:
            events = json.loads(Path(path).read_bytes())
            for event in events:
                facts = event.get("args") or {}
                if facts.get("provider") == CPU_PROVIDER and facts.get("op_name") != self._card.astray:
                    facts["provider"] = CUDA_PROVIDER
            Path(path).write_text(json.dumps(events))
        return path

    def release_captured_graph(self, number: int) -> None:
        self._card.counts["release"] += 1
        if self.simulated and self._card.releases:
            self._captured.pop(number, None)

    def run(self, names: Any, feeds: Any, options: Any = None) -> Any:
        if self.simulated:
            self._kernels(max((np.shape(v)[1] for v in feeds.values() if np.ndim(v) > 1), default=1))
            self._card.counts["run"] += 1
            self._card.counts["wait.run"] += 1
        return self._real.run(names, feeds, options)

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        if not self.simulated:
            self._real.run_with_iobinding(binding, options)
            return
        self._card.counts["run"] += 1
        if _entry(options, "disable_synchronize_execution_providers") != "1":
            self._card.counts["wait.run"] += 1
        number = int(_entry(options, "gpu_graph_id") or 0)
        if not self.captures or number == -1:
            self._execute(binding)
        elif number in self._captured:
            self._replay(number, binding)
        else:
            for _ in range(_PLAIN_RUNS):
                self._execute(binding)
            self._card.counts["capture"] += 1
            self._captured[number] = (_thread(), binding.recorded())
            self._replay(number, binding)
            binding.copy_to_host()
        if _entry(options, "memory.enable_memory_arena_shrinkage") == "gpu:0":
            self._card.counts["shrink"] += 1
            self.arena.shrink()

    def _execute(self, binding: Any) -> None:
        self._kernels(binding.rows())
        binding.execute()
        binding.copy_to_host()

    def _replay(self, number: int, binding: Any) -> None:
        thread, recorded = self._captured[number]
        if thread is not _thread() and self._card.capture_threads:
            raise CardError(f"graph {number} was captured by another thread: this one would capture it anew")
        recorded.require_same(binding)
        self._card.counts["replay"] += 1
        recorded.execute()  # outputs bound to the host are not copied: only what was captured runs

    def _kernels(self, rows: int) -> None:
        if self._card.no_kernel_image:
            raise CardError(
                "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 209: no kernel image is available for "
                "execution on the device ; GPU=0"
            )
        if self._fused and self._card.unsupported_m is not None and rows >= self._card.unsupported_m:
            raise CardError(
                "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running "
                "MatMulNBits node. Status Message: fpA_intB_gemv/dispatcher.h:389 unsupported m"
            )


class Binding:
    """`onnxruntime_pybind11_state.SessionIOBinding` of a simulated session."""

    def __init__(self, card: Card, compiled: Any, session: Session) -> None:
        self._card, self._compiled, self._session = card, compiled, session
        self._host_device = compiled.OrtDevice(
            compiled.OrtDevice.cpu(), compiled.OrtDevice.default_memory(), 0, 0
        )
        self._inputs: dict[str, Bound] = {}
        self._outputs: dict[str, Bound] = {}
        self._copied: dict[str, DeviceValue] = {}
        """Host inputs as they were when they were bound."""
        self._on_the_way: set[str] = set()
        """Those whose copy is in another stream than the runs. A session that captures has one stream."""
        self._scratch: dict[str, DeviceValue] = {}
        """Outputs that are bound to the host, before they are copied there."""
        self._prepared: tuple[Any, list[Any]] | None = None

    def bind_input(
        self, name: str, device: Any, dtype: Any = None, shape: Any = None, pointer: Any = None
    ) -> None:
        if dtype is None:
            array = np.asarray(device)
            return self.bind_input(name, self._host_device, array.dtype, array.shape, array.ctypes.data)
        bound = _bound(name, device, dtype, shape, pointer)
        if not bound.on_card:
            _require_host(bound)
            if name not in self._session.facts.host_inputs:
                value = DeviceValue(self._card, self._session.arena, bound.shape, bound.dtype)
                value.update_inplace(_host_array(bound.pointer, bound))
                self._card.counts["upload"] -= 1
                self._card.counts["upload.bind"] += 1
                self._copied[name] = value
                if not self._session.captures:
                    self._on_the_way.add(name)
                bound = Bound(name, True, bound.dtype, bound.shape, value.data_ptr(), bound.nbytes)
        elif name in self._session.facts.host_inputs:
            raise CardError(f"{name} is read on the host: bound to the card, each bind would copy it back")
        self._inputs[name] = bound
        self._prepared = None

    def bind_output(
        self, name: str, device: Any, dtype: Any = None, shape: Any = None, pointer: Any = None
    ) -> None:
        if pointer is None:
            raise NotImplementedError("outputs without a buffer are not simulated")
        bound = _bound(name, device, dtype, shape, pointer)
        self._outputs[name] = bound
        self._scratch.pop(name, None)
        if not bound.on_card:
            _require_host(bound)
            self._scratch[name] = DeviceValue(self._card, self._session.arena, bound.shape, bound.dtype)
        self._prepared = None

    def bind_ortvalue_input(self, name: str, value: Any) -> None:
        raise NotImplementedError

    bind_ortvalue_output = bind_ortvalue_input

    def synchronize_inputs(self) -> None:
        self._on_the_way.clear()
        self._card.counts["wait.run"] += 1

    def synchronize_outputs(self) -> None:
        self._card.counts["wait.run"] += 1

    def rows(self) -> int:
        """Tokens of the call."""
        return math.prod(self._inputs["input_ids"].shape) if "input_ids" in self._inputs else 1

    def execute(self) -> None:
        """Run the kernels over the memory that is bound now."""
        if self._on_the_way:
            names = ", ".join(sorted(self._on_the_way))
            raise CardError(f"{names}: the run may begin before the copy from the host has arrived")
        if self._prepared is None:
            host = [bound for bound in self._inputs.values() if not bound.on_card]
            feeds = {b.name: _host_array(b.pointer, b) for b in host}
            self._prepared = self._real_binding(feeds)
        binding, checked = self._prepared
        for bound in checked:
            self._card.memory(bound.pointer, bound.nbytes, bound.name)
        self._require_room()
        self._session._real.run_with_iobinding(binding, None)

    def _require_room(self) -> None:
        """CUDA's kernels look at `total_sequence_length` positions; the CPU's follow seqlens_k alone."""
        total, lengths = self._inputs.get("total_sequence_length"), self._inputs.get("seqlens_k")
        if total is not None and lengths is not None:
            content = self._card.memory(lengths.pointer, lengths.nbytes, "seqlens_k").view(np.int32)
            if int(_host_array(total.pointer, total)) <= int(content.max()):
                raise CardError(
                    "total_sequence_length is below a row's length: its last keys would be left out"
                )

    def copy_to_host(self) -> None:
        """Outputs that are bound to the host."""
        for name, value in self._scratch.items():
            bound = self._outputs[name]
            self._card.counts["read.bytes"] += bound.nbytes
            _host_array(bound.pointer, bound)[...] = value._allocation.content.view(bound.dtype).reshape(
                bound.shape
            )

    def recorded(self) -> Recorded:
        """What a capture keeps: addresses and shapes, and the values of what kernels read on the host."""
        host = {b.name: _host_array(b.pointer, b).copy() for b in self._inputs.values() if not b.on_card}
        return Recorded(self, host)

    def _real_binding(self, host: dict[str, np.ndarray]) -> tuple[Any, list[Bound]]:
        binding = self._compiled.SessionIOBinding(self._session._real)
        checked = []
        for name, bound in self._inputs.items():
            if name in host:
                self._bind(binding.bind_input, bound, host[name].ctypes.data)
            else:
                content = self._card.memory(bound.pointer, bound.nbytes, name)
                self._bind(binding.bind_input, bound, content.ctypes.data)
                checked.append(bound)
        for name, bound in self._outputs.items():
            if name in self._scratch:
                content = self._scratch[name]._allocation.content
            else:
                content = self._card.memory(bound.pointer, bound.nbytes, name)
                checked.append(bound)
            self._bind(binding.bind_output, bound, content.ctypes.data)
        return binding, checked

    def _bind(self, bind: Any, bound: Bound, pointer: int) -> None:
        bind(bound.name, self._host_device, bound.dtype.type, list(bound.shape), pointer)


class Recorded:
    """A captured graph: whatever is bound later, these addresses and host values are used."""

    def __init__(self, binding: Binding, host: dict[str, np.ndarray]) -> None:
        self._card, self._real, self._host = binding._card, binding._session._real, host
        self._alive = (dict(binding._copied), dict(binding._scratch))
        self._binding, self._checked = binding._real_binding(host)

    def require_same(self, binding: Binding) -> None:
        """A host value that changed is not read again: on a card a wrong text, here an error."""
        for name, captured in self._host.items():
            now = _host_array(binding._inputs[name].pointer, binding._inputs[name])
            if not np.array_equal(now, captured):
                raise CardError(
                    f"{name} was {captured} when the graph was captured, and is {now}: it stays {captured}"
                )

    def execute(self) -> None:
        for bound in self._checked:
            self._card.memory(bound.pointer, bound.nbytes, f"{bound.name} of a captured graph")
        self._real.run_with_iobinding(self._binding, None)


_local = threading.local()


def _thread() -> object:
    """This thread; its number may be another's later."""
    if not hasattr(_local, "self"):
        _local.self = object()
    return _local.self


def _bound(name: str, device: Any, dtype: Any, shape: Any, pointer: int) -> Bound:
    dtype = np.dtype(dtype)
    shape = tuple(int(size) for size in shape)
    return Bound(
        name, device.device_type() != CPU, dtype, shape, int(pointer), math.prod(shape) * dtype.itemsize
    )


def _require_host(bound: Bound) -> None:
    if bound.pointer >= FIRST_ADDRESS:
        raise illegal(f"{bound.name}: the host read device memory (a real one would have died)")


def _host_array(pointer: int, bound: Bound) -> np.ndarray:
    raw = (ctypes.c_uint8 * max(bound.nbytes, 1)).from_address(pointer)
    return np.frombuffer(raw, dtype=np.uint8)[: bound.nbytes].view(bound.dtype).reshape(bound.shape)


def _entry(options: Any, key: str) -> str | None:
    """A config entry of run or session options."""
    if options is None:
        return None
    read = getattr(options, "get_run_config_entry", None) or options.get_session_config_entry
    try:
        return str(read(key))
    except RuntimeError:  # never set
        return None


def _for_the_cpu(asked: Any) -> Any:
    """Session options without what is for the CUDA provider only."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    for name in ("graph_optimization_level", "log_severity_level", "enable_profiling", "profile_file_prefix"):
        setattr(options, name, getattr(asked, name))
    options.intra_op_num_threads = 1
    return options


def _check_options(given: dict[str, str]) -> None:
    where = "CUDAExecutionProviderInfo::FromProviderOptions [ONNXRuntimeError] : 1 : FAIL : Parse "
    for name in given:
        if name not in OPTIONS:
            raise RuntimeError(f'{where}Unknown provider option: "{name}".')
    if given.get("arena_extend_strategy", _STRATEGIES[0]) not in _STRATEGIES:
        raise RuntimeError(f'{where}Failed to parse provider option "arena_extend_strategy"')
