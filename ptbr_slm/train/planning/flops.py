"""Floating-point operations of training, by calculation. No torch here."""

from __future__ import annotations

from ptbr_slm.config import ModelConfig


def flops_per_token(model: ModelConfig, seq_len: int, *, checkpoint_every: int = 0) -> int:
    """Operations of one trained token: forward, twice as much backward, and the layers computed again.

    A product costs 2 a weight; causal attention reads half of seq_len on average, in scores and in mixing:
    2 * q_size * seq_len a layer. Norms, RoPE and softmax (below 1 %) are left out.
    """
    matrices = model.layer_parameters - 2 * model.hidden_size
    layer = 2 * matrices + 2 * model.q_size * seq_len
    head = 2 * model.vocab_size * model.hidden_size
    recomputed = len(range(0, model.num_layers, checkpoint_every)) if checkpoint_every else 0
    return 3 * (model.num_layers * layer + head) + recomputed * layer
