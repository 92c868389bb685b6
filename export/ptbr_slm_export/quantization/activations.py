"""What goes into each matrix of a model while it reads a text: the calibration of `kquant` and `gptq`.

A Llama in NumPy, one layer at a time for all of the text, so that no more than one layer's weights and Gram
matrices are in memory, and no fp32 graph has to be written first.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from ptbr_slm.config import ModelConfig
from ptbr_slm_export.llama import Floats, Ids, LlamaWeights, attend, rms_norm


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
        return [rms_norm(stream, gain, self.config.norm_eps) @ table.T for stream in self._streams]

    def _layer(self, layer: int) -> None:
        weights, prefix = self.weights, f"layers.{layer}."
        norms = [weights.norm(layer, name) for name in ("input_layernorm", "post_attention_layernorm")]
        qkv, out = weights.matrix(layer, "qkv"), weights.matrix(layer, "attention_out")
        gate, up, down = (weights.matrix(layer, part) for part in ("gate", "up", "down"))
        gains = None
        if self.config.qk_norm:
            gains = weights.head_norm(layer, "q_norm"), weights.head_norm(layer, "k_norm")
        for index, stream in enumerate(self._streams):
            x = rms_norm(stream, norms[0], self.config.norm_eps)
            self._note(prefix + "qkv", x)
            mixed = attend(self.config, x @ qkv.T, gains)
            self._note(prefix + "attention_out", mixed)
            stream = stream + mixed @ out.T
            x = rms_norm(stream, norms[1], self.config.norm_eps)
            self._note(prefix + "gate", x)
            gated = x @ gate.T
            gated = gated / (1 + np.exp(-np.maximum(gated, -80))) * (x @ up.T)
            self._note(prefix + "down", gated)
            self._streams[index] = stream + gated @ down.T
        if self._watching:
            self._grams[prefix + "up"] = self._grams[prefix + "gate"]

    def _last(self) -> None:
        gain = self.weights.final_norm()
        for stream in self._streams:
            self._note("head", rms_norm(stream, gain, self.config.norm_eps))

    def _note(self, name: str, x: Floats) -> None:
        if not self._watching:
            return
        gram = x.T @ x
        self._grams[name] = self._grams[name] + gram if name in self._grams else gram
