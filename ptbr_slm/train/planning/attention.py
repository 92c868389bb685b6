"""Which attention kernels PyTorch has for a training on this card, and what the slow one would cost.

Training never needs flash attention: where its kernel does not run (below sm_80), the memory-efficient one
does, in fp16 and fp32. Where neither does, `scaled_dot_product_attention` quietly takes its plain formula.
"""

from __future__ import annotations

import torch
from torch.backends.cuda import SDPAParams, can_use_efficient_attention, can_use_flash_attention

from ptbr_slm.brazilian import number
from ptbr_slm.config import ModelConfig
from ptbr_slm.train.planning.memory import GIB

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_PROBE = 64
"""Tokens of the tensors that are shown to PyTorch: the choice depends on type, head_dim and card."""


def only_math(model: ModelConfig, device: torch.device, precision: str) -> bool:
    """Whether neither flash nor memory-efficient attention runs this model's heads on this card.

    False on the CPU, which has kernels of its own, and where PyTorch cannot be asked.
    """
    if device.type != "cuda" or torch.version.cuda is None:
        return False
    try:
        heads = _heads(model, device, precision)
        # As in `model.Attention`: no mask, no dropout, causal, keys written out once a query head.
        parameters = SDPAParams(heads, heads, heads, None, 0.0, True, False)
        return not (can_use_flash_attention(parameters) or can_use_efficient_attention(parameters))
    except RuntimeError:  # a card without room for the tensors: the plan speaks of that
        return False


def _heads(model: ModelConfig, device: torch.device, precision: str) -> torch.Tensor:
    """Queries, and as well keys and values, of one short sequence: (1, H, 64, D)."""
    shape = (1, model.num_heads, _PROBE, model.head_dim)
    return torch.empty(shape, dtype=_DTYPES[precision], device=device, requires_grad=True)


def math_note(model: ModelConfig, *, batch_size: int, seq_len: int, checkpoint_every: int) -> str:
    """What the plain formula adds to a step: an fp32 matrix of T x T for each head, kept of each layer.

    PyTorch's `_scaled_dot_product_attention_math` computes half precision in fp32
    (aten/src/ATen/native/transformers/attention.cpp). Of recomputed layers one is alive at a time.
    """
    recomputed = len(range(0, model.num_layers, checkpoint_every)) if checkpoint_every else 0
    layers = max(1, model.num_layers - recomputed)
    size = 4 * layers * batch_size * model.num_heads * seq_len**2
    return (
        "nesta GPU só serve o kernel «math» de atenção, lento e que guarda a matriz inteira: pelo menos "
        f"{number(size / GIB, 2)} GiB a mais do que o calculado. Se a memória acabar, o micro-lote será "
        "dividido; --checkpointing full guarda a matriz de uma camada só."
    )
