"""Where CUDA differs from the CPU: what operators refuse, wait for, draw from, and leave uninitialised."""

from __future__ import annotations

from typing import Any

import torch

from simulated_cuda.device import Card, poison

aten = torch.ops.aten

COPIES = {aten._to_copy.default, aten.copy_.default}
EMPTY = {
    aten.empty.memory_format, aten.empty_strided.default, aten.empty_like.default,
    aten.new_empty.default, aten.new_empty_strided.default,
}  # fmt: skip
LARGE_PRODUCT = 1 << 33
"""Multiplications from which a product is not carried out: a CPU would take minutes."""
WAITING = {
    aten._local_scalar_dense.default: "reading one number",
    aten.nonzero.default: "nonzero counts on the card",
    aten.masked_select.default: "masked_select counts on the card",
    aten._unique2.default: "unique counts on the card",
    aten.equal.default: "equal answers on the host",
    aten.is_nonzero.default: "a condition on the host",
    aten.repeat_interleave.Tensor: "repeat_interleave counts on the card",
}
"""Operators in which the host waits for the card."""
_WITHOUT_SHAPES = {aten._amp_foreach_non_finite_check_and_unscale_.default, aten._fused_adamw_.default}
"""Operators that only write in place, and that the meta device does not know."""
_HOST_INDICES = {
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
    aten._index_put_impl_.default,
}
"""May be given indices on the host, which they copy (and wait)."""


def check(card: Card, func: Any, flat: list[Any], on_card: list[torch.Tensor]) -> None:
    """Raise what CUDA raises for these arguments; count a wait."""
    for leaf in flat:
        if isinstance(leaf, torch.Generator) and leaf.device.type != "cuda":
            raise RuntimeError(f"Expected a 'cuda' device type for generator but found '{leaf.device.type}'")
        if not isinstance(leaf, torch.Tensor):
            continue
        if leaf.device.type == "cuda" and leaf.device.index != card.index:
            raise _mixed(card, leaf)
        if leaf.device.type == "cpu" and not _allowed_on_host(card, func, leaf):
            raise _mixed(card, leaf)
        if leaf.dtype is torch.bfloat16 and card.capability < (8, 0):
            raise AssertionError(f"{func} in bf16, which {card.name} only emulates")
    if func in WAITING:
        card.wait(WAITING[func])
    if func in (aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default) and any(
        isinstance(leaf, torch.Tensor) and leaf.dtype is torch.bool for leaf in flat[1:]
    ):
        card.wait("a boolean mask as index")


def _allowed_on_host(card: Card, func: Any, tensor: torch.Tensor) -> bool:
    if func in _HOST_INDICES and not tensor.is_floating_point():
        card.wait("indices copied from the host")
        return True
    # TensorIterator takes a number from the host; products, cat and the foreach operators do not.
    return tensor.dim() == 0 and torch.Tag.pointwise in func.tags


def _mixed(card: Card, tensor: torch.Tensor) -> RuntimeError:
    return RuntimeError(
        "Expected all tensors to be on the same device, but found at least two devices, "
        f"{card.device} and {tensor.device}!"
    )


def run(card: Card, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operator on CPU tensors, as the CUDA kernel would do it."""
    if func is aten.mm.out and args[0].shape[0] * args[0].shape[1] * args[1].shape[1] > LARGE_PRODUCT:
        return kwargs["out"]  # a benchmark, which looks at the clock only
    if card.shapes_only and func in _WITHOUT_SHAPES:
        return None
    if func in _REPLACED:
        return _REPLACED[func](*args, **kwargs)
    if torch.Tag.nondeterministic_seeded in func.tags and "generator" in _names(func):
        kwargs = {**kwargs, "generator": kwargs.get("generator") or card.generator}
    result = func(*args, **kwargs)
    return poison(result) if func in EMPTY else result


def _names(func: Any) -> set[str]:
    return {argument.name for argument in func._schema.arguments}


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_bias: torch.Tensor | None,
    compute_log_sumexp: bool, dropout_p: float = 0.0, is_causal: bool = False, *, scale: float | None = None,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """_scaled_dot_product_efficient_attention: scores and softmax in fp32, the log-sum-exp kept."""
    scores = _scores(query, key, attn_bias, is_causal, scale)
    lse = scores.logsumexp(-1)
    output = (scores - lse[..., None]).exp() @ value.float()
    seed = torch.zeros((), dtype=torch.int64, device=query.device)
    # (B, H, T, D) over memory that lies as (B, T, H, D), as the kernel leaves it.
    output = output.to(query.dtype).transpose(1, 2).contiguous().transpose(1, 2)
    return output, lse, seed, seed.clone()


def _attend_backward(
    grad: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attn_bias: torch.Tensor | None, out: torch.Tensor, logsumexp: torch.Tensor, philox_seed: torch.Tensor,
    philox_offset: torch.Tensor, dropout_p: float, grad_input_mask: list[bool], is_causal: bool = False, *,
    scale: float | None = None,
) -> tuple[torch.Tensor | None, ...]:  # fmt: skip
    factor = scale if scale is not None else query.shape[-1] ** -0.5
    p = (_scores(query, key, attn_bias, is_causal, scale) - logsumexp[..., None]).exp()
    gradient = grad.float()
    to_value = p.transpose(-1, -2) @ gradient
    delta = (gradient * out.float()).sum(-1, keepdim=True)
    to_scores = p * (gradient @ value.float().transpose(-1, -2) - delta) * factor
    to_query, to_key = to_scores @ key.float(), to_scores.transpose(-1, -2) @ query.float()
    return to_query.to(query.dtype), to_key.to(key.dtype), to_value.to(value.dtype), None


def _scores(
    query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor | None, is_causal: bool, scale: float | None
) -> torch.Tensor:
    factor = scale if scale is not None else query.shape[-1] ** -0.5
    scores = query.float() @ key.float().transpose(-1, -2) * factor
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores if bias is None else scores + bias.float()


_REPLACED = {
    aten._scaled_dot_product_efficient_attention.default: _attend,
    aten._scaled_dot_product_efficient_attention_backward.default: _attend_backward,
}
"""Operators that the CPU has no kernel for, or another one."""
