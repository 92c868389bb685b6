"""Which provider runs an export: its target decides, whatever else the machine has.

To add a target, write an opener (as `cuda.open_cuda`) and a line in `_PROVIDERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnxruntime as ort

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.engines.onnx.providers.cpu import open_cpu
from ptbr_slm.runtime.engines.onnx.providers.gpu_libraries import install_line
from ptbr_slm.runtime.engines.onnx.providers.session import ProviderSession, SessionRequest


@dataclass(frozen=True, slots=True)
class Provider:
    """One execution provider."""

    device: str
    """`cpu` or `cuda`."""
    name: str
    """ONNX Runtime's."""
    open: Callable[[SessionRequest], ProviderSession]


def choose_provider(asked: str, target: str, *, oracle: bool = False) -> Provider:
    """The provider for an export made for `target`: only what runs it whole. Raises E_PROVIDER.

    asked: `auto`, `cpu` or `cuda`. oracle: run any target's graph on the CPU, slowly, to check its answers.
    """
    if oracle:
        return _PROVIDERS["cpu"]
    if target not in _PROVIDERS:
        raise SlmError(
            "E_PROVIDER",
            f"este export foi feito para {target}; esta versão não o executa.",
            where="manifest.json: target",
            hint="Exporte para CPU:  ptbr-slm export MODELO -o PASTA --target cpu",
        )
    provider = _PROVIDERS[target]
    available = provider.name in ort.get_available_providers()
    if asked not in ("auto", provider.device):
        raise _other_device(asked, target, available)
    if not available:
        raise _not_installed(provider, target)
    return provider


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


def _not_installed(provider: Provider, target: str) -> SlmError:
    return SlmError(
        "E_PROVIDER",
        f"este export foi feito para {target}, e o onnxruntime instalado não tem {provider.name}.",
        where="onnxruntime",
        hint=f"{install_line(target)}   Sem GPU NVIDIA:  ptbr-slm export MODELO -o PASTA --target cpu",
    )


def _cuda(request: SessionRequest) -> ProviderSession:
    from ptbr_slm.runtime.engines.onnx.providers.cuda import open_cuda

    return open_cuda(request)


def _tensorrt(request: SessionRequest) -> ProviderSession:
    from ptbr_slm.runtime.engines.onnx.providers.tensorrt import open_tensorrt

    return open_tensorrt(request)


_PROVIDERS = {
    "cpu": Provider("cpu", "CPUExecutionProvider", open_cpu),
    "cuda": Provider("cuda", "CUDAExecutionProvider", _cuda),
    "tensorrt": Provider("cuda", "TensorrtExecutionProvider", _tensorrt),
}
"""By the target of an export."""
