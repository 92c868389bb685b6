"""The model: a Llama decoder in PyTorch, read from top to bottom.

Notable choices: fused QKV and gate/up projections in memory, written out under Llama's names; residual stream
in fp32 under autocast; tied embeddings; no biases; no dropout. Initialised with standard deviation 0.02,
residual projections divided by sqrt(2 * num_layers) (GPT-2), so that the first loss is close to ln V.

Shapes: B sequences, T tokens, H query heads, K key/value heads, D head_dim, C hidden_size, V vocab_size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ptbr_slm.adapters import Projection, TrainedRows
from ptbr_slm.attention_mask import cache_mask, document_mask, document_positions
from ptbr_slm.config import ModelConfig
from ptbr_slm.loss import IGNORE as IGNORE
from ptbr_slm.loss import (
    SharedGradient,
    SoftTargets,
    linear_cross_entropy,
    log_prob_loss,
    plain_cross_entropy,
    product_dtype,
    tied_embedding,
)
from ptbr_slm.storage.model_folder import ModelFolder


class KVCache:
    """Keys and values of the tokens read so far, the same number for every sequence.

    keys, values: (num_layers, B, K, capacity, D). Fill by passing it to `Llama.hidden`.
    """

    def __init__(self, config: ModelConfig, batch_size: int, capacity: int, like: Tensor) -> None:
        shape = (config.num_layers, batch_size, config.num_kv_heads, capacity, config.head_dim)
        self.keys = like.new_zeros(shape)
        self.values = like.new_zeros(shape)
        self.length = 0

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append k, v: (B, K, T, D) at `length`; return all of both, (B, K, length+T, D)."""
        end = self.length + k.shape[2]
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


def rope_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """cos, sin: (max_seq_len, D/2) in fp32, angle = position * frequency."""
    frequencies = torch.tensor(config.rope_frequencies, dtype=torch.float64)
    angles = torch.outer(torch.arange(config.max_seq_len).double(), frequencies)
    return angles.cos().float(), angles.sin().float()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the halves of each head by its position: x (B, T, heads, D), cos and sin (T, 1, D/2), or with
    positions of each sequence its own, (B, T, 1, D/2).
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Attention(nn.Module):
    """Causal grouped-query attention (Ainslie et al., 2023, arXiv:2305.13245)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.qkv = Projection(config.hidden_size, config.q_size + 2 * config.kv_size)
        self.out = Projection(config.q_size, config.hidden_size)
        if config.qk_norm:
            self.q_norm = nn.RMSNorm(config.head_dim, eps=config.norm_eps)
            self.k_norm = nn.RMSNorm(config.head_dim, eps=config.norm_eps)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        layer: int,
        cache: KVCache | None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """x: (B, T, C) -> (B, T, C). With a cache, T new tokens follow the `cache.length` before them.

        mask: (B, 1, T, T) what to add to the scores, without a cache; None: causal.
        """
        heads, kv_heads = self.config.num_heads, self.config.num_kv_heads
        qkv = self.qkv(x).unflatten(-1, (-1, self.config.head_dim))  # (B, T, H+2K, D)
        rotated, v = qkv.split_with_sizes((heads + kv_heads, kv_heads), dim=2)
        if self.config.qk_norm:
            rotated = self._normalised(rotated)
        rotated = apply_rope(rotated, cos.to(v.dtype), sin.to(v.dtype)).transpose(1, 2)  # (B, H+K, T, D)
        q, k = rotated.split_with_sizes((heads, kv_heads), dim=1)
        v = v.transpose(1, 2)  # (B, K, T, D)
        causal = cache is None and mask is None
        if cache is not None:
            k, v = cache.extend(layer, k, v)
            mask = cache_mask(q.shape[2], k.shape[2], x.device)
        # Expanded by hand: below sm_80 the memory-efficient kernel refuses enable_gqa.
        k = k.repeat_interleave(heads // kv_heads, dim=1)  # (B, H, T, D)
        v = v.repeat_interleave(heads // kv_heads, dim=1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        output: Tensor = self.out(mixed.transpose(1, 2).flatten(2))  # (B, T, H*D) -> (B, T, C)
        return output

    def _normalised(self, queries_and_keys: Tensor) -> Tensor:
        """RMSNorm of each head (B, T, H+K, D), in one go for queries and keys (Qwen3, arXiv:2505.09388)."""
        heads, kv_heads, width = self.config.num_heads, self.config.num_kv_heads, self.config.head_dim
        gains = (self.q_norm.weight.expand(heads, -1), self.k_norm.weight.expand(kv_heads, -1))
        normalised = F.rms_norm(queries_and_keys, (width,), eps=self.config.norm_eps)
        return (normalised * torch.cat(gains)).to(queries_and_keys.dtype)


class FeedForward(nn.Module):
    """SwiGLU (Shazeer, 2020, arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_up = Projection(config.hidden_size, 2 * config.intermediate_size)
        self.down = Projection(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, C) -> (B, T, C)."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        output: Tensor = self.down(F.silu(gate) * up)
        return output


class Block(nn.Module):
    """One decoder layer: attention, then feed-forward, each on a normalised copy and added to the stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        layer: int,
        cache: KVCache | None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """x: (B, T, C) -> (B, T, C). The other arguments: see `Attention.forward`."""
        x = x + self.attention(self.attention_norm(x), cos, sin, layer, cache, mask)
        x = x + self.feed_forward(self.feed_forward_norm(x))
        return x


LayerCall = Callable[[Block, Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""What runs a layer: (layer, x, cos, sin, mask) -> x, as `Block.forward` without a cache."""


class Llama(nn.Module):
    """The whole model, and how it is trained:

    checkpoint_every: 0 keeps all activations, k recomputes every k-th layer's.
    loss: `chunked` or `plain`, the same numbers (`ptbr_slm.loss`). z_loss: its factor, in training only.
    backward_scale: fp32 (), what backward will bring to `loss_sum`, where the caller knows it by then; it
    saves the chunked loss a fourth product with the head.
    gradient_hook: is given, in each backward pass, the gradient (B, T, C) of the first states that have one.
    compiled_layer: what runs a layer in training instead of the layer itself (`ptbr_slm.train.compile`).
    embed_rows, head_rows: rows of a frozen embedding and head that are trained; tied, one object.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_every = 0
        self.loss = "chunked"
        self.z_loss = 0.0
        self.backward_scale: Tensor | None = None
        self.gradient_hook: Callable[[Tensor], None] | None = None
        self.compiled_layer: LayerCall | None = None
        self.embed_rows: TrainedRows | None = None
        self.head_rows: TrainedRows | None = None
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.embed.weight
        cos, sin = rope_tables(config)
        self.cos: Tensor
        self.sin: Tensor
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def initialize(self, seed: int) -> Llama:
        """Draw the weights; the same seed gives the same weights on every device, with the same PyTorch.

        Drawn on the CPU and copied: a generator fills tensors of its own device only, and CUDA's would draw
        other numbers.
        """
        generator = torch.Generator().manual_seed(seed)
        residual_std = 0.02 / math.sqrt(2 * self.config.num_layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                nn.init.ones_(parameter)
            else:
                std = residual_std if name.endswith(("attention.out.weight", "down.weight")) else 0.02
                drawn = torch.empty(parameter.shape, dtype=parameter.dtype)
                with torch.no_grad():
                    parameter.copy_(drawn.normal_(std=std, generator=generator))
        return self

    def hidden(
        self,
        tokens: Tensor,
        cache: KVCache | None = None,
        shared: SharedGradient | None = None,
        document_ids: Tensor | None = None,
    ) -> Tensor:
        """tokens: (B, T) int64 -> final normalised states (B, T, C). Advances `cache` by T.

        shared: where the head's gradient waits for the embedding's. document_ids: (B, T), without a cache:
        each token attends to its own document only, and positions begin again with each.
        """
        assert cache is None or document_ids is None
        x = self._embedded(tokens, shared)
        if document_ids is None:
            start = 0 if cache is None else cache.length
            positions = slice(start, start + tokens.shape[1])
            cos, sin = self.cos[positions, None, :], self.sin[positions, None, :]  # (T, 1, D/2)
        else:
            at = document_positions(document_ids)  # (B, T)
            cos, sin = (table[at].unsqueeze(2).to(product_dtype(x)) for table in (self.cos, self.sin))
            # each (B, T, 1, D/2)
        # Made once: of a boolean mask, scaled_dot_product_attention would make and keep one in every layer.
        mask = None if document_ids is None else document_mask(document_ids, product_dtype(x))
        hook = self.gradient_hook
        for index in range(len(self.layers)):
            if hook is not None and x.requires_grad:
                x.register_hook(hook)  # type: ignore[no-untyped-call]
                hook = None
            if self.training and self.checkpoint_every and index % self.checkpoint_every == 0:
                # No dropout, so no RNG state to save.
                x = checkpoint(
                    self._layer,
                    index,
                    x,
                    cos,
                    sin,
                    cache,
                    mask,
                    use_reentrant=False,
                    preserve_rng_state=False,
                )
            else:
                x = self._layer(index, x, cos, sin, cache, mask)
        if cache is not None:
            cache.length += tokens.shape[1]
        return cast(Tensor, self.norm(x))

    def _embedded(self, tokens: Tensor, shared: SharedGradient | None) -> Tensor:
        """tokens: (B, T) -> (B, T, C)."""
        if self.embed_rows is not None:
            return self.embed_rows.embed(tokens, self.embed.weight)
        rows: Tensor = (
            self.embed(tokens) if shared is None else tied_embedding(tokens, self.embed.weight, shared)
        )
        return rows

    def _layer(
        self,
        index: int,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        cache: KVCache | None,
        mask: Tensor | None,
    ) -> Tensor:
        """Layer `index`, x: (B, T, C) -> (B, T, C), compiled where that is wanted."""
        block = self.layers[index]
        if self.compiled_layer is not None and self.training and cache is None:
            return self.compiled_layer(cast(Block, block), x, cos, sin, mask)
        output: Tensor = block(x, cos, sin, index, cache, mask)
        return output

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """tokens: (B, T) int64 -> logits (B, T, V)."""
        return self.logits(self.hidden(tokens, cache))

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden: (..., C) -> logits (..., V)."""
        logits: Tensor = self.head(hidden)
        return logits if self.head_rows is None else self.head_rows.logits(hidden, logits)

    def loss_sum(
        self,
        tokens: Tensor,
        targets: Tensor,
        document_ids: Tensor | None = None,
        soft: SoftTargets | None = None,
    ) -> Tensor:
        """Summed cross-entropy in nats, fp32, over targets (B, T) that are not `IGNORE`.

        document_ids: see `hidden`. soft: the loss of B * T rows that takes its place, always in chunks. A
        sum, so that a step of any number of micro-batches divides once by all its target tokens.
        """
        z_loss = self.z_loss if self.training else 0.0
        # Without gradients, in evaluation, as little memory as it can.
        if self.loss == "plain" and soft is None and torch.is_grad_enabled():
            logits = self.logits(self.hidden(tokens, document_ids=document_ids))  # (B, T, V)
            return plain_cross_entropy(logits.flatten(0, 1), targets.flatten(), z_loss)
        shared = self._shared_gradient()
        return linear_cross_entropy(
            self.hidden(tokens, shared=shared, document_ids=document_ids).flatten(0, 1),
            self.head.weight,
            targets.flatten(),
            scale=self.backward_scale,
            z_loss=z_loss,
            shared=shared,
            trained=None if self.head_rows is None else self.head_rows.as_head(),
            soft=soft,
        )

    def log_prob_loss(
        self,
        tokens: Tensor,
        targets: Tensor,
        loss: Callable[[Tensor], Tensor],
        document_ids: Tensor | None = None,
    ) -> Tensor:
        """Any loss () of the targets' log-probabilities (B, T), which are 0 for `IGNORE`.

        document_ids: see `hidden`. Logits exist in chunks only, whatever `self.loss` says. Without
        gradients `loss` may be of any shape.
        """
        shared = self._shared_gradient()
        return log_prob_loss(
            self.hidden(tokens, shared=shared, document_ids=document_ids).flatten(0, 1),
            self.head.weight,
            targets.flatten(),
            lambda found: loss(found.view(targets.shape)),
            scale=self.backward_scale,
            shared=shared,
            trained=None if self.head_rows is None else self.head_rows.as_head(),
        )

    def _shared_gradient(self) -> SharedGradient | None:
        """Where the head's gradient waits for the embedding's, where both are one and trained."""
        trained = self.head.weight.requires_grad and torch.is_grad_enabled()
        return SharedGradient() if self.config.tie_embeddings and trained else None

    # Llama's names on disk, fused matrices in memory.

    def _folder_tensors(self, *, merged: bool = False) -> Iterator[tuple[str, Tensor]]:
        """(Llama's name, a view of the parameter that holds it); merged: a copy with what adapters add."""
        config = self.config

        def matrix(of: nn.Module) -> Tensor:
            assert isinstance(of, Projection)
            return of.merged() if merged else of.weight

        def table(of: nn.Embedding | nn.Linear, rows: TrainedRows | None) -> Tensor:
            return rows.merged(of.weight) if merged and rows is not None else of.weight

        yield "model.embed_tokens.weight", table(self.embed, self.embed_rows)
        yield "model.norm.weight", self.norm.weight
        if not config.tie_embeddings:
            yield "lm_head.weight", table(self.head, self.head_rows)
        for index, block in enumerate(self.layers):
            assert isinstance(block, Block)
            attention, feed_forward = block.attention, block.feed_forward
            prefix = f"model.layers.{index}."
            if config.qk_norm:
                yield prefix + "self_attn.q_norm.weight", attention.q_norm.weight
                yield prefix + "self_attn.k_norm.weight", attention.k_norm.weight
            yield prefix + "input_layernorm.weight", block.attention_norm.weight
            parts = matrix(attention.qkv).split_with_sizes((config.q_size, config.kv_size, config.kv_size))
            for name, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
                yield f"{prefix}self_attn.{name}.weight", part
            yield prefix + "self_attn.o_proj.weight", matrix(attention.out)
            yield prefix + "post_attention_layernorm.weight", block.feed_forward_norm.weight
            gate, up = matrix(feed_forward.gate_up).chunk(2)
            yield prefix + "mlp.gate_proj.weight", gate
            yield prefix + "mlp.up_proj.weight", up
            yield prefix + "mlp.down_proj.weight", matrix(feed_forward.down)

    def folder_views(self) -> dict[str, Tensor]:
        """Llama's name -> a view of the weight as it is trained."""
        return dict(self._folder_tensors())

    @torch.no_grad()
    def to_hf_weights(self) -> dict[str, npt.NDArray[np.float32]]:
        """Copies of the weights under Llama's names, for `storage.model_folder.write_model_files`.

        Of an adapted model the merged ones.
        """
        return {
            name: tensor.float().cpu().contiguous().numpy().copy()
            for name, tensor in self._folder_tensors(merged=True)
        }

    @torch.no_grad()
    def load_hf_weights(self, read: Callable[[str, tuple[int, ...]], npt.NDArray[np.float32]]) -> Llama:
        """Fill the weights from `read(name, shape)`, such as `WeightReader.read`.

        Of an adapted model the frozen ones, from which its trained rows then begin.
        """
        for name, view in self._folder_tensors():
            view.copy_(torch.from_numpy(read(name, tuple(view.shape))))
        for rows, table in ((self.embed_rows, self.embed), (self.head_rows, self.head)):
            if rows is not None:
                rows.values.copy_(table.weight[rows.ids])
        return self

    @classmethod
    def from_folder(cls, folder: Path) -> Llama:
        """Open a model folder on the CPU in fp32. Raises E_MODEL_INVALID and its kin."""
        opened = ModelFolder(folder)
        return cls(opened.config).load_hf_weights(opened.weights.read)
