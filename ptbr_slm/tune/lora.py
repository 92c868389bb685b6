"""LoRA (Hu et al., 2021, arXiv:2106.09685): y = W x + (alpha / rank) B A x beside each frozen matrix W.

Only A, B and the rows of a few tokens are trained, all kept in fp32; autocast does the products. As in
`peft`, each of Llama's matrices has a pair A, B of its own, also where the model fuses several into one; A
begins as Kaiming's uniform, B as zero.

Shapes: N tokens, C inputs, O outputs of a fused matrix, P matrices in it, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ptbr_slm.adapters import Adapter, Projection, TrainedRows
from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.loss import product_dtype
from ptbr_slm.model import Block, Llama
from ptbr_slm.train.planning.parameters import Adapters

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Llama's matrices that an adapter may stand beside."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    """What is trained beside a frozen model."""

    rank: int = 16
    alpha: float = 32.0
    """The adapters' part is multiplied by alpha / rank, or by alpha / sqrt(rank) (`rank_stabilized`)."""
    targets: tuple[str, ...] = TARGETS
    embed_rows: tuple[int, ...] = ()
    """Ids of the tokens whose rows of the embedding are trained; tied, those of the head with them."""
    head_rows: tuple[int, ...] = ()
    """The same of a head that is not tied."""
    rank_stabilized: bool = False
    """rsLoRA (Kalajdzievski, 2023, arXiv:2312.03732)."""

    @property
    def scaling(self) -> float:
        """The factor of B A."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)

    @property
    def planned(self) -> Adapters:
        """For the planner, which takes every matrix to have an adapter."""
        return Adapters(rank=self.rank, rows=len(self.embed_rows) + len(self.head_rows))


class LowRank(Adapter):
    """The adapters of one matrix in memory, which holds one or several of Llama's.

    a: (P*R, C), one below the other, so that they share one product with x. b: (O, R), the rows of each of
    Llama's matrices one after the other; O without the outputs that have no adapter.
    """

    def __init__(
        self, inputs: int, parts: Mapping[str, slice], config: LoraConfig, draw: torch.Generator
    ) -> None:
        """parts: Llama's name -> its outputs among those of the matrix in memory, in order."""
        super().__init__()
        self.rank, self.scaling = config.rank, config.scaling
        self.outputs = dict(parts)
        sizes = [part.stop - part.start for part in parts.values()]
        self.a = nn.Parameter(torch.empty(len(sizes) * config.rank, inputs))
        self.b = nn.Parameter(torch.zeros(sum(sizes), config.rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5), generator=draw)
        self._pieces = []
        """(rows of a, outputs, rows of b) of each of Llama's matrices."""
        start = 0
        for index, (part, size) in enumerate(zip(parts.values(), sizes, strict=True)):
            rows = slice(index * config.rank, (index + 1) * config.rank)
            self._pieces.append((rows, part, slice(start, start + size)))
            start += size

    def pairs(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """(Llama's name, A (R, C), B (O, R)): views of the parameters."""
        for name, (rows, _, b_rows) in zip(self.outputs, self._pieces, strict=True):
            yield name, self.a[rows], self.b[b_rows]

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """x: (..., C), weight (O, C) -> (..., O)."""
        dtype = product_dtype(x)
        tensors = [tensor.to(dtype) for tensor in (x.flatten(0, -2), weight, self.a, self.b)]
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = _AdaptedProduct.apply(*tensors, self.scaling, self._pieces)  # type: ignore[no-untyped-call]
        return y.reshape(*x.shape[:-1], -1)

    @torch.no_grad()
    def merged(self, weight: Tensor) -> Tensor:
        """weight (O, C) + scaling * B A, in fp32."""
        total = weight.detach().to(torch.float32, copy=True)
        for rows, outputs, b_rows in self._pieces:
            total[outputs].addmm_(self.b[b_rows].float(), self.a[rows].float(), alpha=self.scaling)
        return total


_Pieces = list[tuple[slice, slice, slice]]


class _AdaptedProduct(torch.autograd.Function):
    """x W^T + scaling * x A^T B^T, W frozen: written over the product in place, forward and backward.

    As single operations of autograd it takes 1.03 to 1.24 times as long, forward and backward (measured on a
    CPU with the matrices of the 10.8M and 87.5M models), and keeps x twice under autocast.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scaling: float, pieces: _Pieces
    ) -> Tensor:
        y = x @ weight.t()  # (N, O)
        low = x @ a.t()  # (N, P*R)
        for rows, outputs, b_rows in pieces:
            y[:, outputs].addmm_(low[:, rows], b[b_rows].t(), alpha=scaling)
        ctx.save_for_backward(x, low, weight, a, b)
        ctx.scaling, ctx.pieces = scaling, pieces
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        x, low, weight, a, b = ctx.saved_tensors
        to_low, to_b = torch.empty_like(low), torch.empty_like(b)
        for rows, outputs, b_rows in ctx.pieces:
            part = gradient[:, outputs]
            to_low[:, rows].addmm_(part, b[b_rows], beta=0, alpha=ctx.scaling)
            to_b[b_rows].addmm_(part.t(), low[:, rows], beta=0, alpha=ctx.scaling)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = (gradient @ weight).addmm_(to_low, a)
        return to_x, None, to_low.t() @ x, to_b, None, None


def add_adapters(model: Llama, config: LoraConfig, seed: int = 0) -> Llama:
    """Freeze the model and put adapters into it; it computes what it did before.

    The rows of `embed_rows` begin as they are now; `Llama.load_hf_weights` lets them begin anew. seed: of A,
    the same on every device. Raises E_ADAPTER for a token that the model does not have.
    """
    check_rows(model.config, config)
    model.requires_grad_(False)
    draw = torch.Generator().manual_seed(seed)
    for block in model.layers:
        assert isinstance(block, Block)
        for projection, parts in fused_matrices(block, model.config):
            chosen = {name: part for name, part in parts.items() if name in config.targets}
            if chosen:
                projection.adapter = LowRank(projection.in_features, chosen, config, draw)
                projection.adapter.to(projection.weight.device)
    if config.embed_rows:
        model.embed_rows = TrainedRows(config.embed_rows, model.embed.weight).to(model.embed.weight.device)
    if model.config.tie_embeddings:
        model.head_rows = model.embed_rows
    elif config.head_rows:
        model.head_rows = TrainedRows(config.head_rows, model.head.weight).to(model.head.weight.device)
    return model


def fused_matrices(block: Block, config: ModelConfig) -> Iterator[tuple[Projection, dict[str, slice]]]:
    """Each matrix of a layer in memory, and where in its outputs Llama's matrices lie."""
    attention, feed_forward = block.attention, block.feed_forward
    yield attention.qkv, _slices(q_proj=config.q_size, k_proj=config.kv_size, v_proj=config.kv_size)
    yield attention.out, _slices(o_proj=config.hidden_size)
    yield feed_forward.gate_up, _slices(gate_proj=config.intermediate_size, up_proj=config.intermediate_size)
    yield feed_forward.down, _slices(down_proj=config.hidden_size)


def _slices(**sizes: int) -> dict[str, slice]:
    found, start = {}, 0
    for name, size in sizes.items():
        found[name] = slice(start, start + size)
        start += size
    return found


def check_rows(model: ModelConfig, config: LoraConfig) -> None:
    """Refuse rows that the model does not have. Raises E_ADAPTER."""
    outside = [i for i in (*config.embed_rows, *config.head_rows) if not 0 <= i < model.vocab_size]
    if outside:
        raise SlmError(
            "E_ADAPTER",
            f"o adaptador treina o token {outside[0]}, e o modelo tem {model.vocab_size} tokens.",
            where="trainable_token_indices",
            hint="Use o adaptador com o modelo a partir do qual ele foi treinado.",
        )


def trained_parameters(model: Llama) -> int:
    """Numbers that are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
