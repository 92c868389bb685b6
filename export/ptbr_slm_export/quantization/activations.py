"""What goes into each matrix of a model while it reads a text: the calibration of `kquant` and `gptq`.

A Llama in NumPy, one layer at a time for all of the text, so that no more than one layer's weights and Gram
matrices are in memory, and no fp32 graph has to be written first.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ptbr_slm.config import ModelConfig
from ptbr_slm_export.graphs.weights import Floats, LlamaWeights

Ids = npt.NDArray[np.int64]


class Activations:
    """The Gram matrices of one model on some windows of token ids, in the order of its layers."""

    def __init__(
        self, config: ModelConfig, weights: LlamaWeights, windows: Sequence[Ids], *, watching: bool = True
    ) -> None:
        """windows: each (T,), T at most the context. watching: whether Gram matrices are wanted."""
        self.config, self.weights = config, weights
        table = weights.embedding()
        self._streams = [table[window] for window in windows]  # (T, C) each
        self._done = 0
        self._watching = watching
        self._grams: dict[str, Floats] = {}
        self.tokens = sum(map(len, windows))

    def gram(self, name: str) -> Floats:
        """The mean of x x^T over the inputs of the matrix called `name` in the graph, (columns, columns).

        Layers are read once: ask for them in the order of the graph, and for a layer's while it is the last.
        """
        wanted = self.config.num_layers if name == "head" else int(name.split(".")[1])
        while self._done <= wanted:
            self.advance()
        return self._grams[name] / np.float32(self.tokens)

    def advance(self) -> None:
        """Read on through one layer, or after the last of them through the last norm."""
        self._grams.clear()
        if self._done < self.config.num_layers:
            self._layer(self._done)
        else:
            self._last()
        self._done += 1

    def fork(self, weights: LlamaWeights) -> Activations:
        """Another reader of the same text, from here on with other weights; without Gram matrices."""
        other = copy.copy(self)
        other.weights, other._watching = weights, False
        other._streams, other._grams = list(self._streams), {}
        return other

    def logits(self) -> list[Floats]:
        """(T, V) of each window, once all layers are done."""
        while self._done < self.config.num_layers:
            self.advance()
        table = self.weights.embedding() if self.config.tie_embeddings else self.weights.head()
        gain = self.weights.final_norm()
        return [self._norm(stream, gain) @ table.T for stream in self._streams]

    def _layer(self, layer: int) -> None:
        weights, prefix = self.weights, f"layers.{layer}."
        norms = [weights.norm(layer, name) for name in ("input_layernorm", "post_attention_layernorm")]
        qkv, out = weights.qkv(layer), weights.attention_out(layer)
        gate, up, down = weights.gate(layer), weights.up(layer), weights.down(layer)
        for index, stream in enumerate(self._streams):
            x = self._norm(stream, norms[0])
            self._note(prefix + "qkv", x)
            mixed = self._attend(layer, x @ qkv.T)
            self._note(prefix + "attention_out", mixed)
            stream = stream + mixed @ out.T
            x = self._norm(stream, norms[1])
            self._note(prefix + "gate", x)
            opened = x @ gate.T
            opened = opened / (1 + np.exp(-np.maximum(opened, -80))) * (x @ up.T)
            self._note(prefix + "down", opened)
            self._streams[index] = stream + opened @ down.T
        if self._watching:
            self._grams[prefix + "up"] = self._grams[prefix + "gate"]

    def _last(self) -> None:
        gain = self.weights.final_norm()
        for stream in self._streams:
            self._note("head", self._norm(stream, gain))

    def _note(self, name: str, x: Floats) -> None:
        if not self._watching:
            return
        gram = x.T @ x
        self._grams[name] = self._grams[name] + gram if name in self._grams else gram

    def _norm(self, x: Floats, gain: Floats) -> Floats:
        """RMSNorm of the last axis."""
        square = np.mean(np.square(x), axis=-1, keepdims=True)
        result: Floats = x / np.sqrt(square + np.float32(self.config.norm_eps)) * gain
        return result

    def _attend(self, layer: int, qkv: Floats) -> Floats:
        """Rotation and causal grouped-query attention: (T, (H + 2K) * D) -> (T, H * D)."""
        config = self.config
        heads, kv_heads, width = config.num_heads, config.num_kv_heads, config.head_dim
        q, k, v = np.split(
            qkv.reshape(len(qkv), -1, width), [heads, heads + kv_heads], axis=1
        )  # (T, heads, D)
        if config.qk_norm:
            q = self._norm(q, self.weights.head_norm(layer, "q_norm"))
            k = self._norm(k, self.weights.head_norm(layer, "k_norm"))
        q, k = self._rotate(q), self._rotate(k)
        grouped = q.reshape(len(q), kv_heads, -1, width).transpose(1, 2, 0, 3)  # (K, H / K, T, D)
        scores = grouped @ k.transpose(1, 2, 0)[:, None] / np.float32(np.sqrt(width))  # (K, H / K, T, T)
        scores += np.triu(np.full(scores.shape[2:], -np.inf, dtype=np.float32), 1)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        mixed = scores @ v.transpose(1, 0, 2)[:, None]  # (K, H / K, T, D)
        return np.ascontiguousarray(mixed.transpose(2, 0, 1, 3).reshape(len(qkv), -1))

    def _rotate(self, x: Floats) -> Floats:
        """Halves of each head (T, heads, D) turned by their position (Su et al., 2021, arXiv:2104.09864)."""
        angles = np.outer(np.arange(len(x)), self.config.rope_frequencies)[:, None]  # (T, 1, D/2)
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        first, second = np.split(x, 2, axis=-1)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
