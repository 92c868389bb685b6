"""The shared libraries that ONNX Runtime's CUDA provider opens, which of them are missing, what to install.

Without them ONNX Runtime warns on stderr and runs on the CPU (onnxruntime#21684, #26073). Versions: what the
providers in the wheels onnxruntime-gpu 1.31.1 (CUDA 13) and 1.26.0 (CUDA 12) link.
"""

from __future__ import annotations

import ctypes
import io
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

from ptbr_slm.system import installed_version

_PACKAGES = {
    "cuda": '"onnxruntime-gpu[cuda,cudnn]==1.31.1"',
    "tensorrt": '"onnxruntime-gpu[cuda,cudnn]==1.31.1" "tensorrt-cu13==10.16.*"',
}
"""ORT 1.31 is built for CUDA 13 and libnvinfer.so.10; libcublas comes with the cudnn extra only."""
CUDA_12 = '"onnxruntime-gpu[cuda,cudnn]==1.26.0"'
"""The last one built for CUDA 12, which drivers from 525 on run; CUDA 13 needs 580."""
OLD_DRIVER = "o driver da NVIDIA é antigo demais"
"""Beginning of what is said of a driver that does not run the CUDA of this onnxruntime-gpu."""
BOTH = "onnxruntime e onnxruntime-gpu estão instalados juntos, na mesma pasta, e um estraga o outro"

_SONAMES = {
    13: ("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcufft.so.12"),
    12: ("libcudart.so.12", "libcublasLt.so.12", "libcublas.so.12", "libcurand.so.10", "libcufft.so.11"),
}
"""CUDA version of the onnxruntime-gpu build -> what its provider links."""
DRIVER = "libcuda.so.1"


def install_line(target: str = "cuda", *, cuda: int = 13) -> str:
    """What to type so that exports for `target` run; says so where two packages are in each other's way.

    cuda: major version of the CUDA that the driver runs.
    """
    packages = CUDA_12 if cuda < 13 and target == "cuda" else _PACKAGES.get(target, _PACKAGES["cuda"])
    line = f"Instale:  pip uninstall -y onnxruntime onnxruntime-gpu && pip install {packages}"
    return f"{BOTH[0].upper()}{BOTH[1:]}. {line}" if both_installed() else line


def both_installed() -> bool:
    """Whether pip has installed onnxruntime and onnxruntime-gpu: the later one has overwritten the other."""
    return all(installed_version(name) is not None for name in ("onnxruntime", "onnxruntime-gpu"))


def in_our_words(error: str, cuda_version: str = "") -> str:
    """What a failure of the CUDA provider means, in pt-BR; "" for one that is not known.

    The names are of cudaError_t (CUDA Runtime API, Data types).
    """
    if "driver version is insufficient" in error or "cudaErrorInsufficientDriver" in error:
        made_for = f" para a CUDA {cuda_version} deste onnxruntime-gpu" if cuda_version else ""
        return f"{OLD_DRIVER}{made_for} (CUDA 13 pede o driver 580 ou mais novo; CUDA 12, o 525)"
    if "no kernel image" in error or "cudaErrorNoKernelImageForDevice" in error:
        what = "este onnxruntime-gpu não tem código para esta placa (no kernel image)"
        return f"{what}: precisa ser sm_75 ou mais nova, como a T4"
    if "no CUDA-capable device" in error or "cudaErrorNoDevice" in error:
        return "nenhuma GPU à vista: confira nvidia-smi e CUDA_VISIBLE_DEVICES"
    if "invalid device ordinal" in error or "cudaErrorInvalidDevice" in error:
        return "a GPU pedida não existe: confira CUDA_VISIBLE_DEVICES"
    return ""


def preload(runtime: Any) -> None:
    """Load the libraries of the nvidia packages, so that the provider finds them.

    runtime: the onnxruntime module, whose `preload_dlls` prints to stdout what it misses.
    """
    if hasattr(runtime, "preload_dlls"):
        with redirect_stdout(io.StringIO()):
            runtime.preload_dlls()


def missing_libraries(cuda_version: str, load: Callable[[str], Any] = ctypes.CDLL) -> tuple[str, ...]:
    """Libraries that an onnxruntime-gpu for this CUDA version (`13.0`) needs and that do not open.

    Empty for a CPU build (no version), and where it cannot be told (not Linux).
    """
    major = cuda_version.partition(".")[0]
    if not major.isdigit() or int(major) not in _SONAMES or (load is ctypes.CDLL and sys.platform != "linux"):
        return ()
    return tuple(name for name in (DRIVER, *_SONAMES[int(major)]) if not _opens(name, load))


def _opens(name: str, load: Callable[[str], Any]) -> bool:
    try:
        load(name)
    except OSError:
        return False
    return True
