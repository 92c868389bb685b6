"""Whether ONNX Runtime's GPU providers really run here: each is given a graph of one node."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.onnx.gpu.cuda_libraries import in_our_words, missing_libraries, preload
from ptbr_slm.runtime.onnx.tiny_graph import Node, Tensor, model_bytes

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_CAUSE = 160
"""Characters of ONNX Runtime's own words that are shown."""


def provider_faults() -> dict[str, str]:
    """Provider of this onnxruntime -> why it does not run here, in pt-BR; those that run are absent.

    Only GPU providers are tried: the CPU's always runs.
    """
    available = ort.get_available_providers()
    tried = {CUDA: _cuda_fault, TENSORRT: _tensorrt_fault}
    faults = {provider: fault() for provider, fault in tried.items() if provider in available}
    return {provider: fault for provider, fault in faults.items() if fault}


def _cuda_fault() -> str:
    preload(ort)
    missing = missing_libraries(_cuda_version())
    if missing:
        return f"faltam {', '.join(missing)}"
    ends = [Tensor(name, "float16", (1,)) for name in "xy"]
    graph = model_bytes("trial", [Node("Add", ["x", "x"], ["y"])], ends[:1], ends[1:])
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session: Any = ort.InferenceSession(graph, options, providers=[CUDA], enable_fallback=0)
        if session.get_providers()[:1] != [CUDA]:
            return "o provedor não abriu"
        session.run(None, {"x": np.ones(1, dtype=np.float16)})
    except Exception as error:  # ORT's exceptions share no base class but Exception
        said = " ".join(str(error).split())
        return in_our_words(said, _cuda_version()) or said[:_CAUSE]
    return ""


def _tensorrt_fault() -> str:
    from ptbr_slm.runtime.onnx.tensorrt.libraries import open_libraries

    try:
        open_libraries(_cuda_version())
    except SlmError as error:
        return error.message.removesuffix(".")
    return ""


def _cuda_version() -> str:
    return str(getattr(ort, "cuda_version", "") or "")
