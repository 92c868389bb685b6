"""Which graph an export holds: the inputs and outputs it must have, and the bindings that feed it.

A flavour is found by the manifest's `flavour`. To add one, write its bindings (a prefill and a decode class
in `bindings`, and one for rows where it can), a signature, and a line in `_FLAVOURS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.engines.onnx.bindings import (
    DecodeBinding,
    GqaDecodeBinding,
    GqaPrefillBinding,
    GqaRowsBinding,
    PrefillBinding,
    RowsBinding,
    StdDecodeBinding,
    StdPrefillBinding,
)
from ptbr_slm.runtime.engines.onnx.draft import STATES
from ptbr_slm.runtime.engines.onnx.kv_cache import KVCaches
from ptbr_slm.runtime.engines.onnx.providers.session import ProviderSession, Session

_TENSORS = {"float32": "tensor(float)", "float16": "tensor(float16)"}
"""ONNX Runtime's name of each element type a KV cache may have."""


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
    prefill: Callable[[ProviderSession, KVCaches, int], PrefillBinding]
    """(session, caches, index)."""
    decode: Callable[[ProviderSession, KVCaches, int, int, int], DecodeBinding]
    """(session, caches, first index, count, vocab_size)."""
    rows: Callable[[ProviderSession, KVCaches, int, int], RowsBinding] | None = None
    """(session, caches, first index, count), over host memory; None where the graph has no such run."""


def flavour_of(name: str, where: Path) -> Flavour:
    """The flavour called `name`. Raises E_MANIFEST for one that this version does not run."""
    if name in _FLAVOURS:
        return _FLAVOURS[name]
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


def _gqa_signature(config: ModelConfig, kv_dtype: str) -> Signature:
    past, present = cache_types(config, kv_dtype)
    inputs = {
        "input_ids": "tensor(int64)",
        "seqlens_k": "tensor(int32)",
        "total_sequence_length": "tensor(int32)",
        "logits_index": "tensor(int64)",
    }
    return Signature({**inputs, **past}, {"logits": "tensor(float)", **present})


def _std_signature(config: ModelConfig, kv_dtype: str) -> Signature:
    past, present = cache_types(config, kv_dtype)
    names = ("input_ids", "position_ids", "write_indices", "logits_index")
    inputs = dict.fromkeys(names, "tensor(int64)")
    return Signature({**inputs, **past}, {"logits": "tensor(float)", **present})


_FLAVOURS = {
    "gqa": Flavour("gqa", _gqa_signature, GqaPrefillBinding, GqaDecodeBinding, GqaRowsBinding),
    "std": Flavour("std", _std_signature, StdPrefillBinding, StdDecodeBinding),
}


def check_signature(
    session: Session, config: ModelConfig, signature: Signature, graph: Path, *, states: bool = False
) -> None:
    """Names and types must be those of the flavour: a foreign graph fails here, not at the first token.

    states: whether it must give what a draft layer starts from.
    """
    inputs, outputs = signature.inputs, signature.outputs
    if states:
        outputs = {**outputs, STATES: _TENSORS["float32"]}
    found = {value.name: value.type for value in session.get_inputs()}
    found_outputs = {value.name: value.type for value in session.get_outputs()}
    heads, width = config.num_kv_heads, config.head_dim
    caches = ([None, heads, None, width], [None, heads, config.max_seq_len, width])
    for expected, actual in ((inputs, found), (outputs, found_outputs)):
        if expected != actual:
            names = sorted(
                name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name)
            )
            detail = "; ".join(
                f"{name}: esperado {expected.get(name, 'nenhum')}, achado {actual.get(name, 'nenhum')}"
                for name in names[:3]
            )
            raise _foreign(f"entradas ou saídas diferentes: {detail}", graph)
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else None for size in value.shape]
        if value.name.startswith("past_") and shape not in caches:
            raise _foreign(f"{value.name} tem forma {value.shape}; config.json pede {caches[0]}", graph)
    vocab = session.get_outputs()[[v.name for v in session.get_outputs()].index("logits")].shape[-1]
    if vocab != config.vocab_size:
        raise _foreign(f"logits tem {vocab} colunas; config.json diz vocab_size {config.vocab_size}", graph)


def _foreign(detail: str, graph: Path) -> SlmError:
    return SlmError(
        "E_MODEL_INVALID",
        f"o grafo não é um export do ptbr-slm ({detail}).",
        where=graph,
        hint="Exporte o modelo com:  ptbr-slm export MODELO -o PASTA",
    )
