"""Small models with adapters that are not zero, and runs that train some."""

from __future__ import annotations

from typing import Any

import torch
from tiny_chat import tiny_tokenizer

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


LORA_RUN: dict[str, Any] = {
    "seq_len": 64,
    "batch_size": 2,
    "grad_accum": 2,
    "max_steps": 6,
    "optimizer.learning_rate": 0.02,
    "evaluation.every": 0,
    "evaluation.sample_tokens": 0,
    "checkpoint.every": 2,
    "tune.method": "lora",
    "tune.lora_rank": 4,
    "tune.lora_alpha": 8,
    "device": "cpu",
}
"""Settings of a tuning by adapters that takes a second, but for `data` and `output`."""


def tunable_shape(**more: Any) -> ModelConfig:
    """A model that has `tiny_tokenizer`'s tokens."""
    tokenizer = tiny_tokenizer()
    assert tokenizer.bos_id is not None and tokenizer.eos_id is not None
    return ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        intermediate_size=96,
        max_seq_len=64,
        bos_token_id=tokenizer.bos_id,
        eos_token_ids=(tokenizer.eos_id,),
        pad_token_id=tokenizer.pad_id,
        **more,
    )
