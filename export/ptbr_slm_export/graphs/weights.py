"""The matrices of a Llama folder by their role in the graph, packed as the graph wants them. No torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ptbr_slm.config import ModelConfig
from ptbr_slm.storage.weights import WeightReader

Floats = npt.NDArray[np.float32]

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


class LlamaWeights:
    """Reads one matrix at a time. Rows are outputs: (out, in), as PyTorch's Linear keeps them."""

    def __init__(self, config: ModelConfig, reader: WeightReader) -> None:
        self.config = config
        self.reader = reader
        self._read = reader.read

    def norm(self, layer: int, name: str) -> Floats:
        """Gain of `input_layernorm` or `post_attention_layernorm`, (C,)."""
        return self._read(f"model.layers.{layer}.{name}.weight", (self.config.hidden_size,))

    def final_norm(self) -> Floats:
        """Gain of the last norm, (C,)."""
        return self._read("model.norm.weight", (self.config.hidden_size,))

    def qkv(self, layer: int) -> Floats:
        """Query, key and value rows one after the other, (q_size + 2 * kv_size, C)."""
        config, prefix = self.config, f"model.layers.{layer}.self_attn."
        widths = {"q_proj": config.q_size, "k_proj": config.kv_size, "v_proj": config.kv_size}
        return np.concatenate(
            [
                self._read(f"{prefix}{name}.weight", (width, config.hidden_size))
                for name, width in widths.items()
            ]
        )

    def head_norm(self, layer: int, name: str) -> Floats:
        """Gain of `q_norm` or `k_norm`, (D,); of a model with qk_norm."""
        return self._read(f"model.layers.{layer}.self_attn.{name}.weight", (self.config.head_dim,))

    def attention_out(self, layer: int) -> Floats:
        """(C, q_size)."""
        name = f"model.layers.{layer}.self_attn.o_proj.weight"
        return self._read(name, (self.config.hidden_size, self.config.q_size))

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
        return self._read(EMBEDDING, (self.config.vocab_size, self.config.hidden_size))

    def head(self) -> Floats:
        """(V, C); of an untied model."""
        return self._read(HEAD, (self.config.vocab_size, self.config.hidden_size))

    def _feed_forward(self, layer: int, name: str, rows: int, columns: int) -> Floats:
        return self._read(f"model.layers.{layer}.mlp.{name}.weight", (rows, columns))
