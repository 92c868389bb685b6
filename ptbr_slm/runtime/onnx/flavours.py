"""Which graph an export holds: the inputs and outputs it must have, and the bindings that feed it.

A flavour is found by the manifest's `flavour`. To add one, write its bindings (a prefill and a decode class
as in `binding`), a signature, and a line in `_FLAVOURS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.onnx.kv_cache import KVCaches
from ptbr_slm.runtime.onnx.opened import Opened
from ptbr_slm.runtime.types import Floats

_TENSORS = {"float32": "tensor(float)", "float16": "tensor(float16)"}
"""ONNX Runtime's word for each element a KV cache may have."""


class Prefill(Protocol):
    """Appends tokens to the row at one place."""

    def run(self, tokens: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64], logits: Floats) -> None:
        """Append tokens (S,); the logits at the positions `wanted` (K,) of the chunk go to logits (K, V)."""


class Decode(Protocol):
    """Appends one token to each of a range of places."""

    ids: npt.NDArray[np.int64]
    """(count, 1), to be filled before `run`."""
    lengths: npt.NDArray[np.int32]
    """(count,), a view of the caches' lengths."""

    def run(self) -> Floats:
        """(count, V) logits, which the next run may overwrite. Advances the lengths."""

    def release(self) -> None:
        """The binding will not be run again."""


@dataclass(frozen=True, slots=True)
class Signature:
    """Names and ONNX Runtime types of a graph's inputs and outputs."""

    inputs: dict[str, str]
    outputs: dict[str, str]


@dataclass(frozen=True, slots=True)
class Flavour:
    """One kind of graph."""

    name: str
    signature: Callable[[ModelConfig, str], Signature]
    """Of a model with a KV cache of this dtype (`float32`, `float16`)."""
    prefill: Callable[[Opened, KVCaches, int], Prefill]
    """(opened, caches, place)."""
    decode: Callable[[Opened, KVCaches, int, int, int], Decode]
    """(opened, caches, first place, count, vocab_size)."""


def flavour_of(name: str, where: Path) -> Flavour:
    """The flavour called `name`. Raises E_MANIFEST for one that this version does not run."""
    if name in _FLAVOURS:
        return _FLAVOURS[name]()
    if name == "genai":
        raise SlmError(
            "E_PROVIDER",
            "este export foi feito para o onnxruntime-genai; o ptbr-slm usa os dele.",
            where=where,
            hint="Exporte para cá com:  ptbr-slm export MODELO -o PASTA --target cpu",
        )
    raise SlmError(
        "E_MANIFEST",
        f"o export é de um tipo que esta versão não conhece ({name}).",
        where=where,
        hint="Atualize o ptbr-slm, ou exporte de novo:  ptbr-slm export MODELO -o PASTA",
    )


def cache_types(config: ModelConfig, kv_dtype: str) -> tuple[dict[str, str], dict[str, str]]:
    """The past inputs and present outputs that every flavour has, with their types."""
    past, present = {}, {}
    for layer in range(config.num_layers):
        for side in ("key", "value"):
            past[f"past_key_values.{layer}.{side}"] = _TENSORS[kv_dtype]
            present[f"present.{layer}.{side}"] = _TENSORS[kv_dtype]
    return past, present


def _gqa() -> Flavour:
    from ptbr_slm.runtime.onnx.binding import DecodeBinding, PrefillBinding

    return Flavour("gqa", _gqa_signature, PrefillBinding, DecodeBinding)


def _gqa_signature(config: ModelConfig, kv_dtype: str) -> Signature:
    past, present = cache_types(config, kv_dtype)
    inputs = {
        "input_ids": "tensor(int64)",
        "seqlens_k": "tensor(int32)",
        "total_sequence_length": "tensor(int32)",
        "logits_index": "tensor(int64)",
    }
    return Signature({**inputs, **past}, {"logits": "tensor(float)", **present})


def _std() -> Flavour:
    from ptbr_slm.runtime.onnx.std_binding import StdDecodeBinding, StdPrefillBinding

    return Flavour("std", _std_signature, StdPrefillBinding, StdDecodeBinding)


def _std_signature(config: ModelConfig, kv_dtype: str) -> Signature:
    past, present = cache_types(config, kv_dtype)
    names = ("input_ids", "position_ids", "write_indices", "logits_index")
    inputs = dict.fromkeys(names, "tensor(int64)")
    return Signature({**inputs, **past}, {"logits": "tensor(float)", **present})


_FLAVOURS: dict[str, Callable[[], Flavour]] = {"gqa": _gqa, "std": _std}
"""Name -> what makes it; imports wait until they are needed."""
