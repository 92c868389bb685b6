"""ONNX Runtime sessions on the TensorRT provider: options, stored engines, no fallback.

Written from the strings of the onnxruntime-gpu 1.31.1 wheel and the parser's table (docs/operators.md of
onnx-tensorrt 10.15). Shapes out of a profile rebuild an engine (onnxruntime#16889, #22822), and a partition
left to another provider is slow (onnxruntime#17434). No GPU has run it yet.

No CUDA graphs: the provider launches an engine in one call anyway, and keeps one graph a session, while
decode steps come from several addresses.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.gpus import find_gpus
from ptbr_slm.runtime.engines.onnx.providers.device_memory import DeviceMemory
from ptbr_slm.runtime.engines.onnx.providers.gpu_libraries import (
    cuda_version,
    open_tensorrt_libraries,
    preload,
    tensorrt_install_line,
)
from ptbr_slm.runtime.engines.onnx.providers.session import (
    ERROR_SEVERITY,
    ProviderSession,
    SessionRequest,
    new_session,
)
from ptbr_slm.runtime.engines.onnx.providers.tensorrt_engines import (
    EngineKey,
    cache_root,
    model_sha256,
    reuse_or_build,
)
from ptbr_slm.runtime.protocol import PREFILL_CHUNK

PROVIDER = "TensorrtExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_CPU_REFUSED = "assigned to the default CPU EP"
"""In ORT's message where `session.disable_cpu_ep_fallback` stops a session."""
_log = logging.getLogger(__name__)

MAX_SLOTS = 16
"""Slots that a decode step runs at once; larger batches go in parts."""

Shape = tuple[int, ...]

Assignment = tuple[str, tuple[str, ...]]
"""(provider, operators) of one subgraph."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Ranges (least, most likely, most) of the three free dimensions of the std graph.

    One session a profile: TensorRT's provider builds several profiles into one engine but runs only the first
    (onnxruntime#31624), and kernels chosen for a range that holds both one token and a chunk suit neither.
    """

    name: str
    slots: tuple[int, int, int]
    new: tuple[int, int, int]
    """Tokens a slot."""
    wanted: tuple[int, int, int]
    """Positions a slot whose logits are asked for."""

    @property
    def max_slots(self) -> int:
        """Slots that one call takes at most."""
        return self.slots[2]

    def shapes(self, config: ModelConfig) -> dict[str, tuple[Shape, Shape, Shape]]:
        """Every input's least, most likely and largest shape: TensorRT wants all of them named."""
        least, likely, most = (self._shapes(config, kind) for kind in range(3))
        return {name: (least[name], likely[name], most[name]) for name in least}

    def options(self, config: ModelConfig) -> dict[str, str]:
        """The provider's options that say the same: `input_ids:1x1,position_ids:1x1,...`."""
        shapes = self.shapes(config)
        return {
            f"trt_profile_{word}_shapes": ",".join(
                f"{name}:{'x'.join(map(str, ranges[kind]))}" for name, ranges in shapes.items()
            )
            for kind, word in enumerate(("min", "opt", "max"))
        }

    def _shapes(self, config: ModelConfig, kind: int) -> dict[str, Shape]:
        """Of the least (0), most likely (1) or largest (2) call."""
        slots, new, wanted = self.slots[kind], self.new[kind], self.wanted[kind]
        cache = (slots, config.num_kv_heads, config.max_seq_len, config.head_dim)
        return {
            "input_ids": (slots, new),
            "position_ids": (slots, new),
            "write_indices": (slots,),
            "logits_index": (slots, wanted),
            **{
                f"past_key_values.{layer}.{side}": cache
                for layer in range(config.num_layers)
                for side in ("key", "value")
            },
        }

    def require(self, slots: int, new: int, wanted: int) -> None:
        """Raise E_PROVIDER for a call that the engine was not built for."""
        for what, value, (low, _, high) in (
            ("textos", slots, self.slots),
            ("tokens por texto", new, self.new),
            ("posições pedidas", wanted, self.wanted),
        ):
            if not low <= value <= high:
                raise SlmError(
                    "E_PROVIDER",
                    f"o motor do TensorRT foi compilado para {low} a {high} {what}, não {value}.",
                    where=f"perfil {self.name}",
                    hint="Relate este defeito: o ptbr-slm deveria ter dividido a chamada.",
                )


DECODE = Profile(name="decode", slots=(1, 1, MAX_SLOTS), new=(1, 1, 1), wanted=(1, 1, 1))
"""One token for each of a few texts; tuned for a single text."""
PREFILL = Profile(
    name="prefill", slots=(1, 1, 1), new=(1, PREFILL_CHUNK, PREFILL_CHUNK), wanted=(1, 1, PREFILL_CHUNK)
)
"""A chunk of one text; tuned for a full chunk of which only the last position is wanted."""


def digest(*profiles: Profile) -> str:
    """What distinguishes engines built for other shapes, as a short name."""
    return hashlib.sha256(repr(profiles).encode()).hexdigest()[:8]


def open_tensorrt(request: SessionRequest) -> ProviderSession:
    """A decode and a prefill session over the std graph, each one engine, in the GPU's memory.

    The first time on a card the engines are built, which takes minutes, and stored (see `tensorrt_engines`).
    Raises E_PROVIDER where TensorRT is not whole, does not start or would not run the whole graph,
    E_MODEL_INVALID, E_MEMORY.
    """
    preload(ort)
    cuda = cuda_version(ort)
    version = open_tensorrt_libraries(cuda)
    key = EngineKey(
        model_sha256=model_sha256(request.graph.parent),
        onnxruntime=ort.__version__,
        tensorrt=version,
        capability=require_card(),
        precision=request.precision,
        profiles=digest(DECODE, PREFILL),
    )

    def open_in(folder: Path) -> list[Any]:
        return [open_profile(request, profile, folder, cuda) for profile in (DECODE, PREFILL)]

    decode, prefill = reuse_or_build(cache_root() / key.folder_name, open_in, _log.warning)
    memory = DeviceMemory("cuda", [(_CUDA, {"arena_extend_strategy": "kSameAsRequested"})])
    facts = {"provider": PROVIDER, "tensorrt": f"{version[0]}.{version[1]}"}
    return ProviderSession(
        decode,
        memory,
        facts=facts,
        check_first_run=lambda: None,  # for the warm-up that comes with it: where nodes run was checked above
        prefill=ProviderSession(prefill, memory, facts=facts, profile=PREFILL),
        profile=DECODE,
    )


def require_card() -> tuple[int, int]:
    """Compute capability of the first card. Raises E_PROVIDER where there is none."""
    gpus = find_gpus()
    if gpus and gpus[0].capability is not None:
        return gpus[0].capability
    raise SlmError(
        "E_PROVIDER",
        "este export precisa de uma GPU NVIDIA, e o nvidia-smi não mostra nenhuma.",
        where="nvidia-smi",
        hint="No Kaggle: Settings, GPU T4 x2. Sem GPU:  ptbr-slm export MODELO -o PASTA --target cpu",
    )


def open_profile(request: SessionRequest, profile: Profile, folder: Path, cuda: str) -> Any:
    """A session of one engine for one profile, which `folder` holds or will hold."""
    providers = [(PROVIDER, provider_options(profile, request.config, folder))]
    try:
        session = new_session(request.graph, session_options(), providers)
    except SlmError as error:
        if _CPU_REFUSED in str(error.__cause__):
            raise partial_error("o processador ficaria com uma parte", request.graph, cuda) from error
        raise
    if session.get_providers()[:1] != [PROVIDER]:
        raise partial_error("o provedor do TensorRT não abriu", request.graph, cuda)
    require_one_engine(assignments(session), request.graph, cuda)
    session.disable_fallback()
    return session


def session_options() -> Any:
    """Session options: TensorRT gets the graph as it was exported, whole or not at all."""
    options = ort.SessionOptions()
    # ORT's own rewriting could make of listed operators some that TensorRT's parser does not list.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = 1  # the host only launches
    options.log_severity_level = ERROR_SEVERITY
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def provider_options(profile: Profile, config: ModelConfig, folder: Path) -> dict[str, str]:
    """Options of the TensorRT provider.

    None of `trt_fp16_enable`, `trt_bf16_enable`, `trt_int8_enable`: the graph says where fp16 is right, norms
    and logits stay fp32, and a weakly typed network could choose fp16 for them.
    """
    return {
        "device_id": "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_engine_cache_prefix": profile.name,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
        **profile.options(config),
    }


def assignments(session: Any) -> list[Assignment] | None:
    """How ONNX Runtime shared the graph out; None for a version that does not tell."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    return [
        (part.ep_name, tuple(node.op_type for node in part.get_nodes()))
        for part in session.get_provider_graph_assignment_info()
    ]


def require_one_engine(parts: Iterable[Assignment] | None, graph: Path, cuda: str) -> None:
    """Raise E_PROVIDER unless the whole graph became a single TensorRT engine.

    Many small ones with copies between them are slower than no TensorRT (onnxruntime#17434). A version that
    does not tell (None) has refused nodes on the CPU, the only other provider, by itself.
    """
    if parts is None:
        return
    parts = list(parts)
    elsewhere = sorted({op for provider, operators in parts if provider != PROVIDER for op in operators})
    engines = sum(provider == PROVIDER for provider, _ in parts)
    if elsewhere:
        raise partial_error(f"fora dele ficariam: {', '.join(elsewhere[:6])}", graph, cuda)
    if engines != 1:
        raise partial_error(f"ele o dividiria em {engines} motores", graph, cuda)


def partial_error(detail: str, graph: Path, cuda: str) -> SlmError:
    """E_PROVIDER for a graph that TensorRT would not run as one engine."""
    return SlmError(
        "E_PROVIDER",
        f"o TensorRT não executaria este modelo inteiro ({detail}).",
        where=graph,
        hint=f"{tensorrt_install_line(cuda)};  ou use  ptbr-slm export MODELO -o PASTA --target cuda",
    )
