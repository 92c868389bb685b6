"""Where an export may run: its target decides, never the mood of the machine.

To add a target, write an opener (as `cuda.open_cuda`) and a line in `_PLACES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.onnx.flavours import Flavour
from ptbr_slm.runtime.onnx.opened import Opened
from ptbr_slm.runtime.onnx.session import check_signature, open_cpu


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What an opener needs to know."""

    graph: Path
    config: ModelConfig
    flavour: Flavour
    precision: str
    kv_dtype: str
    threads: int | None = None
    spinning: bool | None = None
    cuda_graph: bool | None = None
    """Whether decode steps become CUDA graphs; None takes PTBR_SLM_CUDA_GRAPH (0, 1), or yes."""


@dataclass(frozen=True, slots=True)
class Place:
    """One execution provider."""

    device: str
    """`cpu` or `cuda`."""
    provider: str
    """ONNX Runtime's name."""
    open: Callable[[Request], Opened]


def open_session(place: Place, request: Request) -> Opened:
    """Open the graph there and check that it is what the manifest says. Raises E_MODEL_INVALID, E_MEMORY,
    E_PROVIDER where the provider does not start or would not run the whole graph.
    """
    opened = place.open(request)
    signature = request.flavour.signature(request.config, request.kv_dtype)
    check_signature(opened.session, request.config, signature, request.graph)
    return opened


def choose_place(asked: str, target: str, *, oracle: bool = False) -> Place:
    """The place for an export made for `target`: only what runs it whole. Raises E_PROVIDER.

    asked: `auto`, `cpu` or `cuda`. oracle: run any target's graph on the CPU, slowly, to check its answers.
    """
    if oracle:
        return _PLACES["cpu"]
    if target not in _PLACES:
        raise SlmError(
            "E_PROVIDER",
            f"este export foi feito para {target}; esta versão não o executa.",
            where="manifest.json: target",
            hint="Exporte para CPU:  ptbr-slm export MODELO -o PASTA --target cpu",
        )
    place = _PLACES[target]
    available = place.provider in ort.get_available_providers()
    if asked not in ("auto", place.device):
        raise _other_device(asked, target, available)
    if not available:
        raise _not_installed(place, target)
    return place


def _other_device(asked: str, target: str, available: bool) -> SlmError:
    if target == "cpu":
        cuda = "CUDAExecutionProvider" in ort.get_available_providers()
        # GroupQueryAttention has no fp32 CUDA kernel: ORT would quietly run it on the CPU, with copies.
        why = "este export é para CPU e não roda na GPU" if cuda else "este onnxruntime não tem CUDA"
        hint = (
            "Use --device cpu, ou exporte para a GPU:  ptbr-slm export MODELO -o PASTA --target cuda"
            if cuda
            else "Use --device cpu, ou veja o que falta com:  ptbr-slm doctor"
        )
    else:
        # fp16 has no CPU kernels: every product would be converted to fp32 and back.
        why = f"este export foi feito para {target}; no processador ele seria lento demais"
        hint = "Exporte para CPU:  ptbr-slm export MODELO -o PASTA --target cpu"
        hint += ";  ou use --device cuda" if available else ""
    return SlmError(
        "E_PROVIDER", f"foi pedido device={asked}, mas {why}.", where=f"--device {asked}", hint=hint
    )


def _not_installed(place: Place, target: str) -> SlmError:
    from ptbr_slm.runtime.onnx.gpu.cuda_libraries import install_line

    return SlmError(
        "E_PROVIDER",
        f"este export foi feito para {target}, e o onnxruntime instalado não tem {place.provider}.",
        where="onnxruntime",
        hint=f"{install_line(target)}   Sem GPU NVIDIA:  ptbr-slm export MODELO -o PASTA --target cpu",
    )


def _cpu(request: Request) -> Opened:
    return open_cpu(request.graph, threads=request.threads, spinning=request.spinning)


def _cuda(request: Request) -> Opened:
    from ptbr_slm.runtime.onnx.gpu.cuda import open_cuda

    return open_cuda(
        request.graph, quantized=request.precision in ("int8", "int4"), graphs=request.cuda_graph
    )


def _tensorrt(request: Request) -> Opened:
    from ptbr_slm.runtime.onnx.tensorrt.session import open_tensorrt

    return open_tensorrt(request)


_PLACES = {
    "cpu": Place("cpu", "CPUExecutionProvider", _cpu),
    "cuda": Place("cuda", "CUDAExecutionProvider", _cuda),
    "tensorrt": Place("cuda", "TensorrtExecutionProvider", _tensorrt),
}
"""By the target of an export."""
