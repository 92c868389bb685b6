"""llama.cpp's own quantisations of the GGUF that `ptbr-slm export --format gguf` writes."""

from __future__ import annotations

from pathlib import Path

import gguf
import llama_cpp

from ptbr_slm.storage.atomic import atomic_file

QUANTISATIONS = {
    "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
}

_IGNORE_LOG = llama_cpp.llama_log_callback(lambda level, text, data: None)
"""Kept here because C holds no reference to it."""


def quantise(source: Path, out: Path, kind: str) -> None:
    """Let llama.cpp quantise an f16 file to one of `QUANTISATIONS`. Raises RuntimeError where it refuses."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = QUANTISATIONS[kind]
    with atomic_file(out) as temporary:
        status = llama_cpp.llama_model_quantize(str(source).encode(), str(temporary).encode(), params)
        if status != 0:
            raise RuntimeError(f"llama_model_quantize to {kind} returned {status}")


def silence() -> None:
    """Keep llama.cpp from writing a page about every file; its errors still come back as codes."""
    llama_cpp.llama_log_set(_IGNORE_LOG, None)


def tensor_bytes(path: Path) -> int:
    """Bytes of every tensor of a GGUF file. With a tied head, one token of decode reads all of them."""
    return sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(path).tensors)
