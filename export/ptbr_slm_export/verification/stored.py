"""The weights as an export holds them, read back from its file under Llama's names.

So that verification can ask two separate questions: are these the model's weights, but for the rounding; and
does the graph compute a Llama over these weights. Bits per byte alone would not do: on a 3.7M model that had
been trained for a few minutes, swapping a matrix of two layers cost 1 to 2 % (docs/decisions.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.model_folder import WeightReader
from ptbr_slm_export.graphs.weights import EMBEDDING, HEAD, Floats
from ptbr_slm_export.quantization.blocks import QuantizedMatrix, dequantize

_PARTS = {
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "feed_forward_norm",
    "self_attn.o_proj": "attention_out",
    "mlp.gate_proj": "gate",
    "mlp.up_proj": "up",
    "mlp.down_proj": "down",
}
"""Llama's name of a layer's weight -> its name in the graph; query, key and value share one matrix."""


class StoredWeights:
    """Reads one weight of an export at a time, dequantised."""

    def __init__(self, graph: Path, config: ModelConfig) -> None:
        """Open model.onnx; its external data stay mapped until they are read."""
        self.config = config
        self.graph = graph
        values = ir.load(graph).graph.initializers.values()
        self._tensors = {value.name: value.const_value for value in values}

    def names(self) -> list[str]:
        """Llama's names of all weights; a tied head is not one of its own."""
        parts = [*_PARTS, *(f"self_attn.{name}_proj" for name in "qkv")]
        if self.config.qk_norm:
            parts += ["self_attn.q_norm", "self_attn.k_norm"]
        layers = [
            f"model.layers.{layer}.{part}.weight" for layer in range(self.config.num_layers) for part in parts
        ]
        return [EMBEDDING, "model.norm.weight", *layers, *([] if self.config.tie_embeddings else [HEAD])]

    def read(self, name: str, shape: tuple[int, ...]) -> Floats:
        """One weight by Llama's name, (out, in) or (C,). Raises E_MODEL_INVALID."""
        array = self._find(name)
        if array.shape != shape:
            raise self._invalid(f"{name} tem forma {array.shape}; config.json pede {shape}")
        return array

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape that config.json gives to a weight."""
        config = self.config
        hidden, wide = config.hidden_size, config.intermediate_size
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            return (config.head_dim,)
        if "norm" in name:
            return (hidden,)
        matrices = {
            "q_proj": (config.q_size, hidden),
            "k_proj": (config.kv_size, hidden),
            "v_proj": (config.kv_size, hidden),
            "o_proj": (hidden, config.q_size),
            "gate_proj": (wide, hidden),
            "up_proj": (wide, hidden),
            "down_proj": (hidden, wide),
        }
        return matrices.get(name.split(".")[-2], (config.vocab_size, hidden))

    def _find(self, name: str) -> Floats:
        if name == EMBEDDING:
            return self._matrix("embedding", self.config.hidden_size, transposed=False)
        if name == HEAD:
            return self._matrix("head", self.config.hidden_size)
        if name == "model.norm.weight":
            return self._tensor("norm.gain")
        _, _, layer, part = name.removesuffix(".weight").split(".", 3)
        prefix = f"layers.{layer}."
        if part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
            q, k = self.config.q_size, self.config.kv_size
            rows = {"q": slice(0, q), "k": slice(q, q + k), "v": slice(q + k, q + 2 * k)}[part[10]]
            return self._matrix(prefix + "qkv", self.config.hidden_size)[rows]
        if part in ("self_attn.q_norm", "self_attn.k_norm"):
            return self._tensor(f"{prefix}{part.removeprefix('self_attn.')}.gain")
        if part.endswith("layernorm"):
            return self._tensor(prefix + _PARTS[part] + ".gain")
        return self._matrix(prefix + _PARTS[part], self.shape(name)[1])

    def _matrix(self, name: str, columns: int, *, transposed: bool = True) -> Floats:
        """(rows, columns), whatever the precision; an fp32 product keeps its matrix transposed."""
        if name + ".codes" not in self._tensors:
            plain = self._tensor(name + ".weight" if transposed else name)
            return np.ascontiguousarray(plain.T) if transposed else plain
        codes = self._tensor(name + ".codes")  # (rows, blocks, block * bits / 8)
        rows, blocks, _ = codes.shape
        zeros = self._tensor(name + ".zeros").reshape(rows, -1) if name + ".zeros" in self._tensors else None
        bits = codes[0].size * 8 // columns
        return dequantize(
            QuantizedMatrix(bits, codes, self._tensor(name + ".scales").reshape(rows, blocks), zeros)
        )

    def _tensor(self, name: str) -> npt.NDArray[Any]:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise self._invalid(f"falta o tensor {name}")
        return np.array(tensor.numpy())

    def _invalid(self, detail: str) -> SlmError:
        return SlmError(
            "E_MODEL_INVALID",
            f"o grafo não é um export do ptbr-slm ({detail}).",
            where=self.graph,
            hint="Exporte o modelo com:  ptbr-slm export MODELO -o PASTA",
        )


def rounding(stored: StoredWeights, source: WeightReader) -> tuple[float, str]:
    """The largest relative error of a stored row, |stored - source| / |source|, and where it is.

    Norms are never rounded: one that differs at all counts as an infinite error.
    """
    worst, where = -1.0, ""
    for name in stored.names():
        shape = stored.shape(name)
        original = source.read(name, shape)
        rows = np.atleast_2d(stored.read(name, shape) - original)
        norms = np.linalg.norm(np.atleast_2d(original), axis=1)
        errors = np.linalg.norm(rows, axis=1) / np.where(norms > 0, norms, 1.0)
        errors = np.nan_to_num(errors, nan=np.inf)
        if len(shape) == 1:
            errors[errors > 0] = np.inf
        if (value := float(errors.max())) > worst:
            worst, where = value, f"{name}, linha {errors.argmax()}"
    return worst, where
