"""The shared libraries that ONNX Runtime's CUDA provider opens, which of them are missing, what to install.

Without them ONNX Runtime warns on stderr and runs on the CPU. Matrix of versions: shared reference onnx B6.
"""

from __future__ import annotations

import ctypes
import io
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

_PACKAGES = {
    "cuda": '"onnxruntime-gpu[cuda,cudnn]==1.31.1"',
    "tensorrt": '"onnxruntime-gpu[cuda,cudnn]==1.31.1" "tensorrt-cu13==10.16.*"',
}
"""ORT 1.31 is built for CUDA 13 and libnvinfer.so.10; libcublas comes with the cudnn extra only."""

_SONAMES = {
    13: ("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcufft.so.12"),
    12: ("libcudart.so.12", "libcublasLt.so.12", "libcublas.so.12", "libcurand.so.10", "libcufft.so.11"),
}
"""CUDA version of the onnxruntime-gpu build -> what its provider links."""
DRIVER = "libcuda.so.1"


def install_line(target: str = "cuda") -> str:
    """What to type so that exports for `target` run."""
    packages = _PACKAGES.get(target, _PACKAGES["cuda"])
    return f"Instale:  pip uninstall -y onnxruntime onnxruntime-gpu && pip install {packages}"


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
