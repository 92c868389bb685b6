"""An ONNX Runtime session on the CUDA provider: its options, and the refusal of every silent fallback.

Written from ONNX Runtime's sources (onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc,
onnxruntime/contrib_ops/cuda/bert/group_query_attention.cc) and the onnxruntime-gpu 1.31.1 wheel; no GPU has
run it yet.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime as ort

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.onnx.gpu.cuda_libraries import DRIVER, install_line, missing_libraries, preload
from ptbr_slm.runtime.onnx.gpu.device_memory import DeviceMemory
from ptbr_slm.runtime.onnx.gpu.home_thread import HomeThread
from ptbr_slm.runtime.onnx.gpu.placement import profiled_nodes, require_whole
from ptbr_slm.runtime.onnx.opened import Opened
from ptbr_slm.runtime.onnx.session import ERROR_SEVERITY, new_session

PROVIDER = "CUDAExecutionProvider"
_KERNELS = {"auto": None, "math": "16", "efficient": "2", "flash": "1"}
"""PTBR_SLM_SDPA_KERNEL -> `sdpa_kernel` of the provider. auto is memory-efficient attention on a T4, which
writes the keys of grouped heads out once a query head, over the whole capacity, each step; math does not."""

_UNSUPPORTED = ("unsupported m", "fpA_intB")
"""In what the fused kernels of int4 and int8 throw for a product that they find no tile for
(onnxruntime#29691; 1.31.1 says `No valid fpA_intB MatMulNBits tactic for M=16, N=64, K=96`)."""

_log = logging.getLogger(__name__)


def open_cuda(graph: Path, *, quantized: bool, graphs: bool | None, fused: bool = True) -> Opened:
    """A session whose every node runs on the card, with its memory.

    quantized: whether there are MatMulNBits nodes. graphs: capture decode steps as CUDA graphs; None takes
    PTBR_SLM_CUDA_GRAPH (0, 1), or yes. fused: multiply quantised weights without writing them out, where the
    card can; `Opened.instead` opens the graph without that where the first runs show that it cannot.
    `Opened.check` must be called after the first run.
    Raises E_PROVIDER, E_MODEL_INVALID, E_MEMORY.
    """
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

    def instead(error: BaseException) -> Opened | None:
        told = f"{error} {error.__cause__}"
        if not (quantized and fused and any(words in told for words in _UNSUPPORTED)):
            return None
        _log.warning(
            "O kernel mais rápido de int4 e int8 não aceita os tamanhos deste modelo nesta placa "
            "(onnxruntime#29691): o modelo foi aberto sem ele, e pode ficar um pouco mais lento."
        )
        return open_cuda(graph, quantized=quantized, graphs=graphs, fused=False)

    home = HomeThread()
    # The moves' sessions capture nothing: their shapes vary. Those that choose tokens may.
    plain, capturing = ([(PROVIDER, provider_options(graphs=g))] for g in (False, True))
    memory = DeviceMemory("cuda", plain, home, capturing if graphs else None)
    facts = {"provider": PROVIDER, "cuda_graph": graphs} | ({"fpa_intb_gemm": fused} if quantized else {})
    return Opened(home.bound(session), memory, graphs, facts, check, instead)


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
    """The first card that this process may use, as its driver calls it; None where that is not told."""
    from ptbr_slm.gpus import find_gpus

    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()
    cards = find_gpus()
    index = int(first) if first.isdecimal() else 0
    return cards[index].name if index < len(cards) else None


def require_provider(session: Any, graph: Path) -> None:
    """Raise E_PROVIDER where ONNX Runtime took another provider, which it only whispers to stderr."""
    if session.get_providers()[:1] == [PROVIDER]:
        return
    missing = missing_libraries(getattr(ort, "cuda_version", "") or "")
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
