"""The shared libraries that ONNX Runtime's GPU providers open: which are missing, what to install, what runs.

Without them ONNX Runtime warns on stderr and runs on the CPU (onnxruntime#21684, #26073). Versions: what the
providers in the wheels onnxruntime-gpu 1.31.1 (CUDA 13) and 1.26.0 (CUDA 12) link. The TensorRT provider
links libnvinfer.so.10 in both, while `pip install tensorrt` brings version 11.

ONNX Runtime itself is imported in functions only: `install_line` answers where it is not installed.
"""

from __future__ import annotations

import ctypes
import importlib.util
import io
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.engines.onnx.providers.onnx_writer import Node, Tensor, model_bytes
from ptbr_slm.system import installed_version

_PACKAGES = {
    "cuda": '"onnxruntime-gpu[cuda,cudnn]==1.31.1"',
    "tensorrt": '"onnxruntime-gpu[cuda,cudnn]==1.31.1" "tensorrt-cu13==10.16.*"',
}
"""ORT 1.31 is built for CUDA 13 and libnvinfer.so.10; libcublas comes with the cudnn extra only."""
CUDA_12 = '"onnxruntime-gpu[cuda,cudnn]==1.26.0"'
"""The last one built for CUDA 12, which drivers from 525 on run; CUDA 13 needs 580."""
OLD_DRIVER = "o driver da NVIDIA é antigo demais"
"""Beginning of the message for a driver that does not run the CUDA of this onnxruntime-gpu."""
BOTH = "onnxruntime e onnxruntime-gpu estão instalados juntos, na mesma pasta, e um estraga o outro"

_SONAMES = {
    13: ("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcufft.so.12"),
    12: ("libcudart.so.12", "libcublasLt.so.12", "libcublas.so.12", "libcurand.so.10", "libcufft.so.11"),
}
"""CUDA version of the onnxruntime-gpu build -> what its provider links."""
DRIVER = "libcuda.so.1"

TENSORRT_PACKAGES = {13: '"tensorrt-cu13==10.16.*"', 12: '"tensorrt-cu12==10.16.*"'}
"""CUDA version of the onnxruntime-gpu build -> the TensorRT that goes with it."""
OLDEST_TENSORRT = (10, 15)
"""The first whose parser takes RMSNormalization, RotaryEmbedding and TensorScatter."""
_INFER, _PARSER, _CUDNN = "libnvinfer.so.10", "libnvonnxparser.so.10", "libcudnn.so.9"
_PIP_FOLDER = "tensorrt_libs"
"""Import package of tensorrt-cu12-libs and tensorrt-cu13-libs: libraries and nothing else."""

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_MOST_SHOWN = 160
"""Characters of ONNX Runtime's own message that are shown."""

Load = Callable[[str], Any]
"""Opens a library by name or path."""


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


def explain_cuda_error(error: str, cuda_version: str = "") -> str:
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


def preload(runtime: ModuleType) -> None:
    """Load the libraries of the nvidia packages, so that the provider finds them.

    runtime: the onnxruntime module, whose `preload_dlls` prints to stdout what it misses.
    """
    if hasattr(runtime, "preload_dlls"):
        with redirect_stdout(io.StringIO()):
            runtime.preload_dlls()


def cuda_version(runtime: ModuleType) -> str:
    """Version of CUDA that an onnxruntime module was built for (`13.0`); "" for a CPU build."""
    return str(getattr(runtime, "cuda_version", "") or "")


def missing_libraries(cuda_version: str, load: Load = ctypes.CDLL) -> tuple[str, ...]:
    """Libraries that an onnxruntime-gpu for this CUDA version (`13.0`) needs and that do not open.

    Empty for a CPU build (no version), and where it is not known (not Linux).
    """
    major = cuda_version.partition(".")[0]
    if not major.isdigit() or int(major) not in _SONAMES or (load is ctypes.CDLL and sys.platform != "linux"):
        return ()
    return tuple(name for name in (DRIVER, *_SONAMES[int(major)]) if not _opens(name, load))


def _opens(name: str, load: Load) -> bool:
    try:
        load(name)
    except OSError:
        return False
    return True


def open_tensorrt_libraries(
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
            hint=tensorrt_install_line(cuda_version, cudnn=_CUDNN in missing),
        )
    version = tensorrt_version(opened[_INFER])
    if version < OLDEST_TENSORRT:
        raise SlmError(
            "E_PROVIDER",
            f"o TensorRT {version[0]}.{version[1]} não conhece as operações deste export; "
            f"é preciso o {OLDEST_TENSORRT[0]}.{OLDEST_TENSORRT[1]} ou mais novo, da série 10.",
            where=_INFER,
            hint=tensorrt_install_line(cuda_version),
        )
    return version


def tensorrt_install_line(cuda_version: str, *, cudnn: bool = False) -> str:
    """What to type so that TensorRT is found; for a build without CUDA everything is named."""
    major = cuda_version.partition(".")[0]
    package = TENSORRT_PACKAGES.get(int(major)) if major.isdigit() else None
    if package is None:
        return install_line("tensorrt")
    extra = ' "onnxruntime-gpu[cuda,cudnn]"' if cudnn else ""
    return f"Instale (a série 11, do pacote tensorrt, não serve):  pip install {package}{extra}"


def tensorrt_version(infer: Any) -> tuple[int, int]:
    """(10, 16) from an opened libnvinfer, whose number is 101601 for 10.16.1."""
    number = int(infer.getInferLibVersion())
    return number // 10_000, number // 100 % 100


def _open(name: str, folder: Path | None, load: Load) -> Any:
    """The library from the pip package or wherever the system has it; None where it does not open."""
    for path in ([str(folder / name)] if folder is not None else []) + [name]:
        try:
            return load(path)
        except OSError:
            continue
    return None


def _load_for_all(name: str) -> Any:
    return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)


def _pip_folder() -> Path | None:
    spec = importlib.util.find_spec(_PIP_FOLDER)
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    return Path(folders[0]) if folders else None


def provider_faults() -> dict[str, str]:
    """Provider of this onnxruntime -> why it does not run here, in pt-BR; those that run are absent.

    Each GPU provider is given a graph of one node; the CPU's always runs.
    """
    import onnxruntime as ort

    available = ort.get_available_providers()
    tried = {CUDA: _cuda_fault, TENSORRT: _tensorrt_fault}
    faults = {provider: fault(ort) for provider, fault in tried.items() if provider in available}
    return {provider: fault for provider, fault in faults.items() if fault}


def _cuda_fault(ort: ModuleType) -> str:
    import numpy as np

    preload(ort)
    missing = missing_libraries(cuda_version(ort))
    if missing:
        return f"faltam {', '.join(missing)}"
    ends = [Tensor(name, "float16", (1,)) for name in "xy"]
    graph = model_bytes("one_node", [Node("Add", ["x", "x"], ["y"])], ends[:1], ends[1:])
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session: Any = ort.InferenceSession(graph, options, providers=[CUDA], enable_fallback=0)
        if session.get_providers()[:1] != [CUDA]:
            return "o provedor não abriu"
        session.run(None, {"x": np.ones(1, dtype=np.float16)})
    except Exception as error:  # ORT's exceptions share no base class but Exception
        message = " ".join(str(error).split())
        return explain_cuda_error(message, cuda_version(ort)) or message[:_MOST_SHOWN]
    return ""


def _tensorrt_fault(ort: ModuleType) -> str:
    try:
        open_tensorrt_libraries(cuda_version(ort))
    except SlmError as error:
        return error.message.removesuffix(".")
    return ""
