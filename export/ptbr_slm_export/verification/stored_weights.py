"""The weights as an export holds them, read back from its file under Llama's names.

So that verification can ask two separate questions: are these the model's weights, but for the rounding; and
does the graph compute a Llama over these weights. Bits per byte alone would not do: on a 3.7M model that had
been trained for a few minutes, swapping a matrix of two layers cost 1 to 2 %
(docs/decisions/0013-stored-weights.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.weights import EMBEDDING, HEAD, WeightReader
from ptbr_slm_export.llama import Floats
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
OWN_HEAD = "lm_head.weight (a matriz que o export tem além da do embedding)"
"""A tied head that an export stores a second time, in fewer bits than the embedding."""
EXACT_HEAD = "lm_head.weight (as linhas em int8 que recalculam os melhores logits)"
"""The rows from which the best logits of an int4 head are scored again: the embedding's where it is tied."""

ROUNDING = {32: 0.0, 16: 1e-3, 8: 0.03, 4: 0.35}
"""Stored bits -> largest relative error of a block of weights, of a row where there are none. One large
weight among many small ones is the worst case: sqrt(128 / 12) / 128 = 0.026 for int8, and for int4
sqrt(2 * 64 / 12) / 15 = 0.22, to which gptq adds what it moves from one weight to the next (85m, measured:
0.15 by search and hqq, 0.20 by kquant, 0.22 by gptq). fp16 rounds by 2^-11, and more only below 6e-5."""


@dataclass(frozen=True, slots=True)
class WrongWeight:
    """The stored weight that lies furthest from the model's, of the tensor that lies furthest."""

    name: str
    """Llama's name."""
    row: int
    column: int
    stored: float
    original: float
    error: float
    """Relative, of the whole block; infinite for a norm that differs, or where something is no number."""
    limit: float
    """What rounding to the stored bits may come to."""
    others: tuple[str, ...] = ()
    """Further tensors beyond their limits."""

    @property
    def passed(self) -> bool:
        """Whether rounding explains it."""
        return self.error <= self.limit

    @property
    def layer(self) -> int | None:
        """The layer; None for the embedding, the last norm and the head."""
        parts = self.name.split(".")
        return int(parts[2]) if parts[:2] == ["model", "layers"] else None

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "layer": self.layer,
            "name": self.name,
            "row": self.row,
            "column": None if self.column < 0 else self.column,
            "stored": self.stored if np.isfinite(self.stored) else None,
            "original": self.original,
            "others": list(self.others),
        }

    def __str__(self) -> str:
        if self.passed:
            return f"{self.name}, linha {self.row}"
        layer = "" if self.layer is None else f"camada {self.layer}, "
        element = f"[{self.row}]" if self.column < 0 else f"[{self.row}, {self.column}]"
        values = f"{self.stored:.6g} no export, {self.original:.6g} no modelo".replace(".", ",")
        more = f"; também {', '.join(self.others[:3])}" if self.others else ""
        more += f" e mais {len(self.others) - 3}" if len(self.others) > 3 else ""
        return f"{layer}{self.name}{element}: {values}{more}"


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
        if self.config.tie_embeddings:
            head = [OWN_HEAD] if self.has_own_head else []
        else:
            head = [HEAD, EXACT_HEAD] if "head.exact.codes" in self._tensors else [HEAD]
        return [EMBEDDING, "model.norm.weight", *layers, *head]

    @property
    def has_own_head(self) -> bool:
        """Whether a tied head is stored apart from the embedding, rounded further."""
        return self.config.tie_embeddings and "head.codes" in self._tensors

    @property
    def is_quantised(self) -> bool:
        """Whether any matrix is stored in codes."""
        return any(name.endswith(".codes") for name in self._tensors)

    def of(self, name: str) -> Floats:
        """One weight by Llama's name, the head and its exact rows by their own also where they are tied."""
        if self.config.tie_embeddings and name in (HEAD, EXACT_HEAD):
            name = OWN_HEAD if self.has_own_head and name == HEAD else EMBEDDING
        return self.read(name, self.shape(name))

    def blocks(self, name: str) -> int:
        """Blocks in a row of a stored weight; 1 where it is stored in floats."""
        codes = self._tensors.get(self._inner_name(name) + ".codes")
        return 1 if codes is None else int(codes.shape[1])

    def bits(self, name: str) -> int:
        """Bits of a stored weight by Llama's name: 32, 16, 8 or 4."""
        inner = self._inner_name(name)
        codes = self._tensors.get(inner + ".codes")
        if codes is not None:
            return int(np.prod(codes.shape[1:])) * 8 // self.shape(name)[1]
        tensor = next(
            (self._tensors[end] for end in (inner + ".weight", inner) if end in self._tensors), None
        )
        return 32 if tensor is None else int(tensor.dtype.itemsize) * 8

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
        inner = self._inner_name(name)
        if inner.endswith("norm.gain"):
            return self._tensor(inner)
        matrix = self._matrix(inner, self.shape(name)[1], transposed=inner != "embedding")
        if not inner.endswith(".qkv"):
            return matrix
        q, k = self.config.q_size, self.config.kv_size
        rows = {"q": slice(0, q), "k": slice(q, q + k), "v": slice(q + k, q + 2 * k)}
        return matrix[rows[name.split(".")[-2][0]]]

    @staticmethod
    def _inner_name(name: str) -> str:
        """Llama's name -> the name of the tensor or matrix in the graph."""
        outside = {
            EMBEDDING: "embedding",
            HEAD: "head",
            OWN_HEAD: "head",
            EXACT_HEAD: "head.exact",
            "model.norm.weight": "norm.gain",
        }
        if name in outside:
            return outside[name]
        _, _, layer, part = name.removesuffix(".weight").split(".", 3)
        prefix = f"layers.{layer}."
        if part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
            return prefix + "qkv"
        if part in ("self_attn.q_norm", "self_attn.k_norm"):
            return f"{prefix}{part.removeprefix('self_attn.')}.gain"
        return prefix + _PARTS[part] + (".gain" if part.endswith("layernorm") else "")

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
        array = np.array(tensor.numpy())
        return array.astype(np.float32) if array.dtype == np.float16 else array

    def _invalid(self, detail: str) -> SlmError:
        return SlmError(
            "E_MODEL_INVALID",
            f"o grafo não é um export do ptbr-slm ({detail}).",
            where=self.graph,
            hint="Exporte o modelo com:  ptbr-slm export MODELO -o PASTA",
        )


def worst_weight(stored: StoredWeights, source: WeightReader) -> WrongWeight:
    """Where a stored block (a row, of floats) errs most, |stored - source| / |source|, for its bits.

    Norms are never rounded below fp16: one that differs at all counts as an infinite error.
    """
    found = [_worst_block(stored, source, name) for name in stored.names()]
    worst = max(found, key=lambda weight: weight.error / weight.limit if weight.limit else weight.error * 1e9)
    others = tuple(weight.name for weight in found if not weight.passed and weight is not worst)
    return replace(worst, others=others)


def _worst_block(stored: StoredWeights, source: WeightReader, name: str) -> WrongWeight:
    """The worst of a weight's blocks, or rows where it has none."""
    shape = stored.shape(name)
    original = np.atleast_2d(source.read({OWN_HEAD: EMBEDDING, EXACT_HEAD: HEAD}.get(name, name), shape))
    ours = np.atleast_2d(stored.read(name, shape))
    blocks = len(original), stored.blocks(name), -1
    difference = (ours - original).reshape(blocks)
    norms = np.linalg.norm(original.reshape(blocks), axis=2)
    errors = np.linalg.norm(difference, axis=2) / np.where(norms > 0, norms, 1.0)  # (rows, blocks)
    errors = np.nan_to_num(errors, nan=np.inf)
    limit = ROUNDING[stored.bits(name)]
    if len(shape) == 1 and limit == 0:
        errors[errors > 0] = np.inf
    row, block = (int(i) for i in np.unravel_index(errors.argmax(), errors.shape))
    within = int(np.nan_to_num(np.abs(difference[row, block]), nan=np.inf).argmax())
    column = block * difference.shape[2] + within
    position = (column, -1) if len(shape) == 1 else (row, column)
    values = float(ours[row, column]), float(original[row, column])
    return WrongWeight(name, *position, *values, float(errors[row, block]), limit)
