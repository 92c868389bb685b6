"""Functions of PyTorch that become one kernel on CUDA, by a choice in C++ that only CUDA builds have."""

from __future__ import annotations

from typing import Any

import torch

from simulated_cuda.device import cards
from simulated_cuda.tensor import DeviceTensor

aten = torch.ops.aten


def attention(original: Any) -> Any:
    """`scaled_dot_product_attention` as sm_75 answers it.

    Raises AssertionError where the rules of sdp_utils.cpp (can_use_mem_efficient_attention) leave only the
    math kernel, whose scores take T * T numbers a head.
    """

    def attend(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        if query.device.type != "cuda":
            return original(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        aligned = query.shape[-1] % (8 if query.dtype is torch.float16 else 4) == 0
        contiguous = all(tensor.stride(-1) == 1 for tensor in (query, key, value))
        if enable_gqa or not aligned or not contiguous or query.dtype is torch.bfloat16:
            raise AssertionError(f"attention would fall to the math kernel: {query.shape}, {query.dtype}")
        if attn_mask is not None and attn_mask.dtype is torch.bool:
            bias = torch.zeros_like(attn_mask, dtype=query.dtype)
            attn_mask = bias.masked_fill(~attn_mask, float("-inf"))
        if attn_mask is not None:
            attn_mask = attn_mask.expand(*query.shape[:2], query.shape[2], key.shape[2])
        output: torch.Tensor = aten._scaled_dot_product_efficient_attention(
            query, key, value, attn_mask, True, dropout_p, is_causal, scale=scale
        )[0]
        return output

    return attend


def rms_norm(original: Any) -> Any:
    """`rms_norm`, which on CUDA is one kernel (_fused_rms_norm) that keeps 1/rms and no normalised copy."""

    def normalise(
        x: torch.Tensor, shape: Any, weight: torch.Tensor | None = None, eps: float | None = None
    ) -> torch.Tensor:
        if x.device.type != "cuda":
            return original(x, shape, weight, eps)
        output: torch.Tensor = _FusedRmsNorm.apply(x, weight, eps or torch.finfo(x.dtype).eps)
        return output

    return normalise


class _FusedRmsNorm(torch.autograd.Function):
    """Computed on the tensors of the host: a kernel's temporary numbers are in registers."""

    @staticmethod
    def forward(ctx: Any, x: DeviceTensor, weight: DeviceTensor | None, eps: float) -> torch.Tensor:
        card, wide = cards[x.device.index], x.host.float()
        rstd = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, DeviceTensor(rstd, card), weight)
        normalised = wide * rstd
        output = normalised if weight is None else normalised * weight.host.float()
        return DeviceTensor(output.to(x.dtype), card)

    @staticmethod
    def backward(ctx: Any, grad: DeviceTensor) -> tuple[torch.Tensor | None, ...]:
        x, rstd, weight = ctx.saved_tensors
        card, gradient = cards[x.device.index], grad.host.float()
        normalised = x.host.float() * rstd.host
        to_weight = None
        if weight is not None:
            to_weight = DeviceTensor((gradient * normalised).flatten(0, -2).sum(0).to(weight.dtype), card)
            gradient = gradient * weight.host.float()
        inner = (gradient * normalised).mean(-1, keepdim=True)
        to_x = ((gradient - normalised * inner) * rstd.host).to(x.dtype)
        return DeviceTensor(to_x, card), to_weight, None
