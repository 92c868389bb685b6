"""The baseline of benchmarks/learning.py: nanoGPT's architecture, initialisation and recipe, written anew.

github.com/karpathy/nanoGPT (model.py, train.py, config/train_shakespeare_char.py, the README's CPU example):
LayerNorm without bias, GELU, learned positions, tied head, standard deviation 0.02 with residual projections
divided by sqrt(2 * layers); AdamW, 1e-3 to 1e-4 by a cosine after 100 steps of warm-up, betas 0.9, 0.99,
decay 0.1 on all matrices, clipping at 1, no dropout; random windows. Its schedule counts iterations; here the
share of the time that is over stands for them: as for one who has set their number beforehand.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WARM_UP, PEAK, FLOOR, BETAS, DECAY, CLIP = 100, 1e-3, 1e-4, (0.9, 0.99), 0.1, 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """One way to run it."""

    layers: int
    heads: int
    width: int
    block_size: int
    batch_size: int


class Block(nn.Module):
    """Pre-norm attention and a feed-forward of four times the width."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, width = shape.heads, shape.width
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.attention_out = (
            nn.Linear(width, 3 * width, bias=False),
            nn.Linear(width, width, bias=False),
        )
        self.up, self.down = (
            nn.Linear(width, 4 * width, bias=False),
            nn.Linear(4 * width, width, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, C) -> (B, T, C)."""
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1))  # (B, T, 3, H, D)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attention_out(mixed.transpose(1, 2).flatten(2))
        out: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return out


class GPT(nn.Module):
    """The model; `embed` and `loss_sum` are what `ptbr_slm.train.evaluate.bits_per_byte` asks for."""

    def __init__(self, shape: Shape, vocab_size: int, seed: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, shape.width)
        self.positions = nn.Embedding(shape.block_size, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width, bias=False)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("attention_out.weight", "down.weight"))
                std = 0.02 / math.sqrt(2 * shape.layers) if residual else 0.02
                nn.init.normal_(parameter, std=std, generator=generator)

    def loss_sum(self, tokens: Tensor, targets: Tensor, document_ids: Tensor | None = None) -> Tensor:
        """tokens, targets: (B, T) -> summed cross-entropy in nats. document_ids: always None here."""
        x = self.embed(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.embed.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=-100)


def train(
    shape: Shape,
    tokens: Tensor,
    vocab_size: int,
    seconds: float,
    seed: int,
) -> tuple[GPT, int]:
    """The model after `seconds` of training on `tokens`, and the steps that it did."""
    model = GPT(shape, vocab_size, seed)
    decayed = [parameter for parameter in model.parameters() if parameter.dim() == 2]
    plain = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}],
        lr=PEAK,
        betas=BETAS,
        fused=True,
    )
    draw = torch.Generator().manual_seed(seed)
    began, steps = time.monotonic(), 0
    while (progress := (time.monotonic() - began) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = _rate(steps, progress)
        starts = torch.randint(len(tokens) - shape.block_size, (shape.batch_size,), generator=draw)
        windows = torch.stack([tokens[start : start + shape.block_size + 1] for start in starts.tolist()])
        optimizer.zero_grad(set_to_none=True)
        loss = model.loss_sum(windows[:, :-1], windows[:, 1:]) / windows[:, 1:].numel()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        steps += 1
    return model, steps


def _rate(step: int, progress: float) -> float:
    if step < WARM_UP:
        return PEAK * (step + 1) / WARM_UP
    return FLOOR + (PEAK - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress))
