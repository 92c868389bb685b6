"""Text from the live model while it trains, so that a person sees it learn."""

from __future__ import annotations

import torch
from torch import Tensor

from ptbr_slm.model import KVCache, Llama
from ptbr_slm.tokenizer import Tokenizer

TEMPERATURE = 0.8
TOP_K = 50


@torch.no_grad()
def write_sample(model: Llama, tokenizer: Tokenizer, prompt: str, tokens: int, seed: int) -> str:
    """The continuation of `prompt` by up to `tokens` tokens; ends early at an end token or a full context.

    Draws from a generator of its own: sampling leaves the training's random state as it was.
    """
    was_training = model.training
    model.eval()
    device = model.embed.weight.device
    generator = torch.Generator().manual_seed(seed)
    ids = tokenizer.encode(prompt)[-(model.config.max_seq_len - 1) :]
    capacity = min(model.config.max_seq_len, len(ids) + tokens)
    cache = KVCache(model.config, 1, capacity, model.embed.weight)
    fresh, written = ids, list[int]()
    while len(ids) + len(written) < capacity:
        states = model.hidden(torch.tensor([fresh], device=device), cache)  # (1, T, C)
        token = _draw(model.head(states[0, -1]).float().cpu(), generator)
        if token in model.config.eos_token_ids:
            break
        written.append(token)
        fresh = [token]
    model.train(was_training)
    return tokenizer.decode(written)


def _draw(logits: Tensor, generator: torch.Generator) -> int:
    """logits: (V,) on the CPU -> one id among the TOP_K."""
    best, ids = logits.topk(min(TOP_K, len(logits)))
    chosen = torch.multinomial(torch.softmax(best / TEMPERATURE, dim=-1), 1, generator=generator)
    return int(ids[chosen])
