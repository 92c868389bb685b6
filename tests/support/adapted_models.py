"""Small models with adapters that are not zero."""

from __future__ import annotations

import torch

from ptbr_slm.config import ModelConfig
from ptbr_slm.model import Llama
from ptbr_slm.tune.lora import LoraConfig, LowRank, add_adapters

SHAPE = ModelConfig(
    vocab_size=160,
    hidden_size=64,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    intermediate_size=96,
    max_seq_len=64,
)
ROWS = (3, 7, 11)
"""Tokens whose rows are trained."""
ADAPTED = LoraConfig(rank=4, alpha=8, embed_rows=ROWS)


def adapted(shape: ModelConfig = SHAPE, config: LoraConfig = ADAPTED, *, moved: bool = True) -> Llama:
    """A random model with adapters. moved: B and the trained rows are no longer where they begin."""
    model = Llama(shape).initialize(0)
    add_adapters(model, config, seed=1)
    if moved:
        move(model)
    return model


@torch.no_grad()
def move(model: Llama, seed: int = 2) -> None:
    """Change everything that is trained."""
    draw = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, LowRank):
            module.b.normal_(std=0.1, generator=draw)
    for rows in {id(r): r for r in (model.embed_rows, model.head_rows) if r is not None}.values():
        rows.values.normal_(std=0.1, generator=draw)
