"""An ONNX Runtime session on the CUDA provider: its options, and the refusal of every silent fallback.

`InferenceSession.get_providers` lists a provider even where single nodes fell back to the CPU, and the copies
that this costs (Memcpy nodes) are in no list at all. A profiled first run names every node with its provider.

Written from ONNX Runtime's sources (onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc,
onnxruntime/contrib_ops/cuda/bert/group_query_attention.cc) and the onnxruntime-gpu 1.31.1 wheel; no GPU has
run it yet.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime as ort

from ptbr_slm.errors import SlmError
from ptbr_slm.gpus import find_gpus
from ptbr_slm.runtime.engines.onnx.providers.device_memory import DeviceMemory
from ptbr_slm.runtime.engines.onnx.providers.gpu_libraries import (
    DRIVER,
    cuda_version,
    install_line,
    missing_libraries,
    preload,
)
from ptbr_slm.runtime.engines.onnx.providers.session import (
    ERROR_SEVERITY,
    ProviderSession,
    SessionRequest,
    new_session,
)
from ptbr_slm.runtime.engines.onnx.providers.worker_thread import WorkerThread

PROVIDER = "CUDAExecutionProvider"
_KERNELS = {"auto": None, "math": "16", "efficient": "2", "flash": "1"}
"""PTBR_SLM_SDPA_KERNEL -> `sdpa_kernel` of the provider. auto is memory-efficient attention on a T4, which
writes the keys of grouped heads out once a query head, over the whole capacity, each step; math does not."""

_UNSUPPORTED = ("unsupported m", "fpA_intB")
"""Parts of the errors that the fused kernels of int4 and int8 raise for a product without a tile
(onnxruntime#29691; 1.31.1 says `No valid fpA_intB MatMulNBits tactic for M=16, N=64, K=96`)."""

_COPIES = ("MemcpyFromHost", "MemcpyToHost")

Nodes = Counter[tuple[str, str]]
"""(provider, operator) -> how many nodes ran."""

_log = logging.getLogger(__name__)


def open_cuda(request: SessionRequest, *, fused: bool = True) -> ProviderSession:
    """A session whose every node runs on the GPU, with its memory.

    fused: multiply quantised weights (MatMulNBits nodes) without writing them out, where the GPU can;
    `ProviderSession.fallback` opens the graph without that where the first runs show that it cannot.
    `ProviderSession.check_first_run` must be called after the first run.
    Raises E_PROVIDER, E_MODEL_INVALID, E_MEMORY.
    """
    graph, graphs, quantized = request.graph, request.cuda_graph, request.precision in ("int8", "int4")
    if graphs is None:
        graphs = os.environ.get("PTBR_SLM_CUDA_GRAPH", "1") != "0"
    preload(ort)
    providers = [(PROVIDER, provider_options(graphs=graphs))]
    profiles = Path(tempfile.mkdtemp(prefix="ptbr-slm-"))
    try:
        session = new_session(graph, session_options(profiles, fused=quantized and fused), providers)
        require_provider(session, graph)
    except BaseException:
        shutil.rmtree(profiles, ignore_errors=True)
        raise
    session.disable_fallback()

    def check() -> None:
        try:
            require_whole(profiled_nodes(Path(session.end_profiling())), PROVIDER, graph)
        finally:
            shutil.rmtree(profiles, ignore_errors=True)

    def fallback(error: BaseException) -> ProviderSession | None:
        message = f"{error} {error.__cause__}"
        if not (quantized and fused and any(part in message for part in _UNSUPPORTED)):
            return None
        _log.warning(
            "O kernel mais rápido de int4 e int8 não aceita os tamanhos deste modelo nesta placa "
            "(onnxruntime#29691): o modelo foi aberto sem ele, e pode ficar um pouco mais lento."
        )
        return open_cuda(replace(request, cuda_graph=graphs), fused=False)

    worker = WorkerThread()
    # The sessions that copy capture nothing: their shapes vary. Those that choose tokens may.
    plain, capturing = ([(PROVIDER, provider_options(graphs=g))] for g in (False, True))
    memory = DeviceMemory("cuda", plain, worker, capturing if graphs else None)
    facts = {"provider": PROVIDER, "cuda_graph": graphs} | ({"fpa_intb_gemm": fused} if quantized else {})
    return ProviderSession(worker.wrap(session), memory, graphs, facts, check, fallback)


def provider_options(*, graphs: bool) -> dict[str, str]:
    """Options of the CUDA provider. Raises E_CONFIG for an unknown PTBR_SLM_SDPA_KERNEL."""
    options = {
        # Powers of two, the default, take up to twice what a model needs.
        "arena_extend_strategy": "kSameAsRequested",
        # In fp16 SkipSimplifiedLayerNormalization sums squares in fp16 otherwise: zeros and NaN
        # (onnxruntime#29034, #28442).
        "enable_skip_layer_norm_strict_mode": "1",
        "enable_cuda_graph": "1" if graphs else "0",
    }
    asked = os.environ.get("PTBR_SLM_SDPA_KERNEL", "auto")
    if asked not in _KERNELS:
        raise SlmError(
            "E_CONFIG",
            f"PTBR_SLM_SDPA_KERNEL={asked} não existe.",
            where="PTBR_SLM_SDPA_KERNEL",
            hint=f"Use um destes: {', '.join(_KERNELS)}.",
        )
    kernel = _KERNELS[asked]
    return options | ({"sdpa_kernel": kernel} if kernel else {})


def session_options(profiles: Path, *, fused: bool) -> Any:
    """Session options; a profile of the first run goes into the folder `profiles`."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = 1  # the host only launches kernels
    options.log_severity_level = ERROR_SEVERITY
    options.enable_profiling = True
    options.profile_file_prefix = str(profiles / "placement")
    if fused:
        # int4 and int8 weights straight into fp16 tensor cores, from sm_75 on: symmetric, blocks of 32.
        options.add_session_config_entry("ep.cuda.fpa_intb_gemm", "1")
    return options


@cache
def card_name() -> str | None:
    """The first GPU that this process may use, by its driver's name; None where that is not known."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()
    cards = find_gpus()
    index = int(first) if first.isdecimal() else 0
    return cards[index].name if index < len(cards) else None


def require_provider(session: Any, graph: Path) -> None:
    """Raise E_PROVIDER where ONNX Runtime took another provider, of which it only warns on stderr."""
    if session.get_providers()[:1] == [PROVIDER]:
        return
    missing = missing_libraries(cuda_version(ort))
    detail = f"faltam {', '.join(missing)}" if missing else "o provedor de CUDA não abriu neste computador"
    no_card = DRIVER in missing
    raise SlmError(
        "E_PROVIDER",
        f"foi pedida a GPU, e o ONNX Runtime passaria para o processador: {detail}.",
        where=graph,
        hint="Ligue a GPU (no Kaggle: Settings, Accelerator, GPU T4 x2) ou instale o driver da NVIDIA."
        if no_card
        else install_line("cuda"),
    )


def profiled_nodes(profile: Path) -> Nodes:
    """Nodes in a file that `InferenceSession.end_profiling` wrote, each counted once however often it ran."""
    seen = set()
    for event in json.loads(profile.read_bytes()):
        facts: Mapping[str, Any] = event.get("args") or {}
        if event.get("cat") == "Node" and "op_name" in facts and "provider" in facts:
            seen.add((event["name"], str(facts["provider"]), str(facts["op_name"])))
    return Counter((provider, op) for _, provider, op in seen)


def require_whole(nodes: Nodes, provider: str, where: Path) -> None:
    """Raise E_PROVIDER unless every node ran on `provider`, with no copy between it and the host."""
    elsewhere = {key: count for key, count in nodes.items() if key[0] != provider or key[1] in _COPIES}
    if nodes and not elsewhere:
        return
    shown = ", ".join(
        f"{op} ({count})" for (_, op), count in sorted(elsewhere.items(), key=lambda x: -x[1])[:4]
    )
    detail = f"{sum(elsewhere.values())} de {sum(nodes.values())} operações ficaram fora dele: {shown}"
    raise SlmError(
        "E_PROVIDER",
        f"o {provider} não executa este modelo inteiro ({detail if nodes else 'nada foi executado'}).",
        where=where,
        hint="Exporte de novo com esta versão:  ptbr-slm export MODELO -o PASTA --target cuda;  e confira o "
        "onnxruntime-gpu com:  ptbr-slm doctor",
    )
