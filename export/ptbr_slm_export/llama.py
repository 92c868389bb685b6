"""A Llama in NumPy: its matrices by their role in the graph, packed as the graph wants them, and the parts
that have no matrix. No torch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ptbr_slm.config import ModelConfig
from ptbr_slm.storage.weights import EMBEDDING, HEAD

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
ReadWeight = Callable[[str, tuple[int, ...]], Floats]
"""Llama's name and shape of a weight -> the weight."""
PARTS = ("qkv", "attention_out", "gate", "up", "down")
"""Matrices of a layer, by their names in the graph."""


class LlamaWeights:
    """Reads one matrix at a time. Rows are outputs: (out, in), as PyTorch's Linear keeps them."""

    def __init__(self, config: ModelConfig, read: ReadWeight) -> None:
        """read: such as `WeightReader.read`."""
        self.config = config
        self.read = read

    def matrix(self, layer: int, part: str) -> Floats:
        """The matrix of a layer by its name in the graph, one of `PARTS`."""
        readers = {
            "qkv": self.qkv,
            "attention_out": self.attention_out,
            "gate": self.gate,
            "up": self.up,
            "down": self.down,
        }
        return readers[part](layer)

    def norm(self, layer: int, name: str) -> Floats:
        """Gain of `input_layernorm` or `post_attention_layernorm`, (C,)."""
        return self.read(f"model.layers.{layer}.{name}.weight", (self.config.hidden_size,))

    def final_norm(self) -> Floats:
        """Gain of the last norm, (C,)."""
        return self.read("model.norm.weight", (self.config.hidden_size,))

    def qkv(self, layer: int) -> Floats:
        """Query, key and value rows one after the other, (q_size + 2 * kv_size, C)."""
        config, prefix = self.config, f"model.layers.{layer}.self_attn."
        widths = {"q_proj": config.q_size, "k_proj": config.kv_size, "v_proj": config.kv_size}
        return np.concatenate(
            [
                self.read(f"{prefix}{name}.weight", (width, config.hidden_size))
                for name, width in widths.items()
            ]
        )

    def head_norm(self, layer: int, name: str) -> Floats:
        """Gain of `q_norm` or `k_norm`, (D,); of a model with qk_norm."""
        return self.read(f"model.layers.{layer}.self_attn.{name}.weight", (self.config.head_dim,))

    def attention_out(self, layer: int) -> Floats:
        """(C, q_size)."""
        name = f"model.layers.{layer}.self_attn.o_proj.weight"
        return self.read(name, (self.config.hidden_size, self.config.q_size))

    def gate(self, layer: int) -> Floats:
        """(intermediate_size, C)."""
        return self._feed_forward(layer, "gate_proj", self.config.intermediate_size, self.config.hidden_size)

    def up(self, layer: int) -> Floats:
        """(intermediate_size, C)."""
        return self._feed_forward(layer, "up_proj", self.config.intermediate_size, self.config.hidden_size)

    def down(self, layer: int) -> Floats:
        """(C, intermediate_size)."""
        return self._feed_forward(layer, "down_proj", self.config.hidden_size, self.config.intermediate_size)

    def embedding(self) -> Floats:
        """(V, C)."""
        return self.read(EMBEDDING, (self.config.vocab_size, self.config.hidden_size))

    def head(self) -> Floats:
        """(V, C); of an untied model."""
        return self.read(HEAD, (self.config.vocab_size, self.config.hidden_size))

    def _feed_forward(self, layer: int, name: str, rows: int, columns: int) -> Floats:
        return self.read(f"model.layers.{layer}.mlp.{name}.weight", (rows, columns))


def rms_norm(x: Floats, gain: Floats, epsilon: float) -> Floats:
    """RMSNorm of the last axis (Zhang and Sennrich, 2019, arXiv:1910.07467)."""
    square = np.mean(np.square(x), axis=-1, keepdims=True)
    result: Floats = x / np.sqrt(square + np.float32(epsilon)) * gain
    return result


def attend(config: ModelConfig, qkv: Floats, gains: tuple[Floats, Floats] | None) -> Floats:
    """Rotation and causal grouped-query attention: (T, (H + 2K) * D) -> (T, H * D).

    gains: of `q_norm` and `k_norm`, (D,) each; None for a model without qk_norm.
    """
    heads, kv_heads, width = config.num_heads, config.num_kv_heads, config.head_dim
    q, k, v = np.split(qkv.reshape(len(qkv), -1, width), [heads, heads + kv_heads], axis=1)  # (T, heads, D)
    if gains is not None:
        q, k = rms_norm(q, gains[0], config.norm_eps), rms_norm(k, gains[1], config.norm_eps)
    q, k = rotate(config, q), rotate(config, k)
    grouped = q.reshape(len(q), kv_heads, -1, width).transpose(1, 2, 0, 3)  # (K, H / K, T, D)
    scores = grouped @ k.transpose(1, 2, 0)[:, None] / np.float32(np.sqrt(width))  # (K, H / K, T, T)
    scores += np.triu(np.full(scores.shape[2:], -np.inf, dtype=np.float32), 1)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    mixed = scores @ v.transpose(1, 0, 2)[:, None]  # (K, H / K, T, D)
    return np.ascontiguousarray(mixed.transpose(2, 0, 1, 3).reshape(len(qkv), -1))


def rotate(config: ModelConfig, x: Floats) -> Floats:
    """Halves of each head (T, heads, D) turned by their position (Su et al., 2021, arXiv:2104.09864)."""
    angles = np.outer(np.arange(len(x)), config.rope_frequencies)[:, None]  # (T, 1, D/2)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
