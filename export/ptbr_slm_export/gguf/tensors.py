"""The tensors of a GGUF file, one at a time, from a Llama folder's weights.

Two things differ from the folder: the names, and the order of the rows of q and k, since llama.cpp's RoPE
turns neighbouring pairs for `llama`, where Hugging Face's turns the two halves of a head. For `qwen3` (a
model with qk_norm) it turns halves, and nothing is reordered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ptbr_slm.config import ModelConfig
from ptbr_slm.rope import frequencies
from ptbr_slm_export.llama import Floats, LlamaWeights


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor to be written; matrices are (out, in)."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Floats]
    """Reads it from the folder when it is its turn."""


def architecture(config: ModelConfig) -> str:
    """llama.cpp's name of the model."""
    return "qwen3" if config.qk_norm else "llama"


def tensors(config: ModelConfig, weights: LlamaWeights) -> Iterator[Tensor]:
    """Every tensor of the file, in its order."""
    table = (config.vocab_size, config.hidden_size)
    yield Tensor("token_embd.weight", table, weights.embedding)
    if not config.tie_embeddings:
        yield Tensor("output.weight", table, weights.head)
    yield Tensor("output_norm.weight", (config.hidden_size,), weights.final_norm)
    if config.rope_scaling is not None and config.rope_scaling.kind == "llama3":
        yield Tensor("rope_freqs.weight", (config.head_dim // 2,), lambda: rope_divisors(config))
    for layer in range(config.num_layers):
        yield from _layer(config, weights, layer)


def _layer(config: ModelConfig, weights: LlamaWeights, layer: int) -> Iterator[Tensor]:
    hidden, wide, prefix = config.hidden_size, config.intermediate_size, f"blk.{layer}."
    q, k = config.q_size, config.kv_size

    def part(start: int, stop: int, heads: int | None) -> Callable[[], Floats]:
        """Rows of the packed qkv, with `heads` in llama.cpp's order."""

        def read() -> Floats:
            rows = weights.qkv(layer)[start:stop]
            return rows if heads is None or config.qk_norm else interleave_halves(rows, heads)

        return read

    def norm(name: str) -> Callable[[], Floats]:
        return lambda: weights.norm(layer, name)

    def head_norm(name: str) -> Callable[[], Floats]:
        return lambda: weights.head_norm(layer, name)

    yield Tensor(prefix + "attn_norm.weight", (hidden,), norm("input_layernorm"))
    yield Tensor(prefix + "attn_q.weight", (q, hidden), part(0, q, config.num_heads))
    yield Tensor(prefix + "attn_k.weight", (k, hidden), part(q, q + k, config.num_kv_heads))
    yield Tensor(prefix + "attn_v.weight", (k, hidden), part(q + k, q + 2 * k, None))
    if config.qk_norm:
        for name in ("q_norm", "k_norm"):
            gain = prefix + f"attn_{name}.weight"
            yield Tensor(gain, (config.head_dim,), head_norm(name))
    yield Tensor(prefix + "attn_output.weight", (hidden, q), lambda: weights.attention_out(layer))
    yield Tensor(prefix + "ffn_norm.weight", (hidden,), norm("post_attention_layernorm"))
    yield Tensor(prefix + "ffn_gate.weight", (wide, hidden), lambda: weights.gate(layer))
    yield Tensor(prefix + "ffn_up.weight", (wide, hidden), lambda: weights.up(layer))
    yield Tensor(prefix + "ffn_down.weight", (hidden, wide), lambda: weights.down(layer))


def interleave_halves(weight: Floats, heads: int) -> Floats:
    """Rows of each head from (first half, second half) to pairs: row i and row i + D/2 become 2i and 2i + 1.

    weight: (heads * D, C) -> (heads * D, C), as in llama.cpp's `LlamaModel.permute`.
    """
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)  # (heads, 2, D/2, C)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def rope_divisors(config: ModelConfig) -> Floats:
    """(D/2,) what llama.cpp divides each plain frequency by: 1 for the fast, `factor` for the slow ones."""
    plain = frequencies(config.rope_theta, config.head_dim, None)
    divisors: Floats = (np.array(plain) / np.array(config.rope_frequencies)).astype(np.float32)
    return divisors
