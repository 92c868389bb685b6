"""TensorRT's shared libraries: found in its pip package, opened, told apart by version; what to install.

onnxruntime-gpu's TensorRT provider links libnvinfer.so.10 (read from the wheels of 1.26.0 and 1.31.1), while
`pip install tensorrt` brings version 11. Without the library ONNX Runtime takes another provider.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.onnx.gpu.cuda_libraries import install_line

PACKAGES = {13: '"tensorrt-cu13==10.16.*"', 12: '"tensorrt-cu12==10.16.*"'}
"""CUDA version of the onnxruntime-gpu build -> the TensorRT that goes with it."""
OLDEST = (10, 15)
"""The first whose parser takes RMSNormalization, RotaryEmbedding and TensorScatter."""
_INFER, _PARSER, _CUDNN = "libnvinfer.so.10", "libnvonnxparser.so.10", "libcudnn.so.9"
_PIP_FOLDER = "tensorrt_libs"
"""Import package of tensorrt-cu12-libs and tensorrt-cu13-libs: libraries and nothing else."""

Load = Callable[[str], Any]


def open_libraries(
    cuda_version: str, load: Load | None = None, folder: Path | None = None
) -> tuple[int, int]:
    """Open what the provider links, and leave it open for it: TensorRT's (major, minor).

    cuda_version: of the onnxruntime build (`13.0`). load: opens a library by name or path; ctypes' where
    None. folder: of the pip package; looked for where None. Raises E_PROVIDER naming what is missing or too
    old.
    """
    if load is None and sys.platform != "linux":
        raise SlmError(
            "E_PROVIDER",
            "os exports para o TensorRT só rodam no Linux.",
            where=sys.platform,
            hint="Aqui use:  ptbr-slm export MODELO -o PASTA --target cuda   (sem GPU NVIDIA: --target cpu)",
        )
    load = load or _load_for_all
    folder = folder or _pip_folder()
    opened = {name: _open(name, folder, load) for name in (_INFER, _PARSER, _CUDNN)}
    missing = [name for name, library in opened.items() if library is None]
    if missing:
        raise SlmError(
            "E_PROVIDER",
            f"este export precisa do TensorRT 10, e falta {' e '.join(missing)}.",
            where="TensorRT",
            hint=install_hint(cuda_version, cudnn=_CUDNN in missing),
        )
    version = library_version(opened[_INFER])
    if version < OLDEST:
        raise SlmError(
            "E_PROVIDER",
            f"o TensorRT {version[0]}.{version[1]} não conhece as operações deste export; "
            f"é preciso o {OLDEST[0]}.{OLDEST[1]} ou mais novo, da série 10.",
            where=_INFER,
            hint=install_hint(cuda_version),
        )
    return version


def install_hint(cuda_version: str, *, cudnn: bool = False) -> str:
    """What to type so that TensorRT is found; for a build without CUDA everything is named."""
    major = cuda_version.partition(".")[0]
    package = PACKAGES.get(int(major)) if major.isdigit() else None
    if package is None:
        return install_line("tensorrt")
    extra = ' "onnxruntime-gpu[cuda,cudnn]"' if cudnn else ""
    return f"Instale (a série 11, do pacote tensorrt, não serve):  pip install {package}{extra}"


def library_version(infer: Any) -> tuple[int, int]:
    """(10, 16) from an opened libnvinfer, whose number is 101601 for 10.16.1."""
    number = int(infer.getInferLibVersion())
    return number // 10_000, number // 100 % 100


def _open(name: str, folder: Path | None, load: Load) -> Any:
    """The library from the pip package or wherever the system has it; None where it does not open."""
    for place in ([str(folder / name)] if folder is not None else []) + [name]:
        try:
            return load(place)
        except OSError:
            continue
    return None


def _load_for_all(name: str) -> Any:
    return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)


def _pip_folder() -> Path | None:
    spec = importlib.util.find_spec(_PIP_FOLDER)
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    return Path(places[0]) if places else None
