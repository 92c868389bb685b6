"""Train a small Brazilian Portuguese language model, export it to ONNX, generate text.

    import ptbr_slm
    ptbr_slm.generate("O Brasil é", model="runs/x/export", max_new_tokens=64, seed=1)

Importing this package imports neither torch nor onnxruntime (PEP 562): names arrive when first used. It
switches off the telemetry of the libraries that it imports later (`ptbr_slm.privacy`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ptbr_slm.privacy import switch_off_telemetry
from ptbr_slm.version import __version__

if TYPE_CHECKING:
    from ptbr_slm.errors import SlmError
    from ptbr_slm.runtime.model import Model, generate, load, stream
    from ptbr_slm.runtime.results import GenerationChunk, GenerationResult, TokenLogprob
    from ptbr_slm.runtime.sampling.params import SamplingParams
    from ptbr_slm.runtime.scoring import ContinuationScore
    from ptbr_slm.runtime.sequence import Cancel

__all__ = [
    "Cancel",
    "ContinuationScore",
    "GenerationChunk",
    "GenerationResult",
    "Model",
    "SamplingParams",
    "SlmError",
    "TokenLogprob",
    "__version__",
    "generate",
    "load",
    "stream",
]

_MODULES = {
    "SlmError": "ptbr_slm.errors",
    "generate": "ptbr_slm.runtime.model",
    "load": "ptbr_slm.runtime.model",
    "stream": "ptbr_slm.runtime.model",
    "Model": "ptbr_slm.runtime.model",
    "Cancel": "ptbr_slm.runtime.sequence",
    "ContinuationScore": "ptbr_slm.runtime.scoring",
    "GenerationChunk": "ptbr_slm.runtime.results",
    "GenerationResult": "ptbr_slm.runtime.results",
    "SamplingParams": "ptbr_slm.runtime.sampling.params",
    "TokenLogprob": "ptbr_slm.runtime.results",
}

switch_off_telemetry()


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'ptbr_slm' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
