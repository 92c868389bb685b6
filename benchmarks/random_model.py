"""A model folder of random weights: speed does not depend on what a model has learned.

The tokenizer is a real byte-level BPE of the asked size, trained on invented words, so that every peer's
converter takes the folder as it takes a trained one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import torch

from ptbr_slm.config import ModelConfig
from ptbr_slm.model import Llama
from ptbr_slm.storage.atomic import atomic_folder
from ptbr_slm.storage.model_folder import seal_model_folder, write_model_files
from ptbr_slm.tokenizer import Tokenizer

_ONSETS = (*"bcdfghjlmnprstvxz", "br", "cr", "dr", "gr", "pr", "tr", "bl", "cl", "pl", "ch", "lh", "nh", "qu")
_RIMES = (*"aeiouãõáéíóú", "ar", "er", "or", "as", "es", "os", "am", "em", "om", "al", "el", "ol", "ão", "ai")


def invented_words(count: int, *, seed: int = 0) -> Iterator[str]:
    """Lines of ten words of one to five Portuguese-looking syllables, `count` words in all."""
    draw = random.Random(seed)
    words = (
        "".join(draw.choice(_ONSETS) + draw.choice(_RIMES) for _ in range(draw.randint(1, 5)))
        for _ in range(count)
    )
    while line := " ".join(word for word, _ in zip(words, range(10), strict=False)):
        yield line


def write_random_model(folder: Path, config: ModelConfig, *, seed: int = 0) -> None:
    """Write a sealed model folder of `config`'s shape. Raises ValueError where the vocabulary falls short."""
    tokenizer = Tokenizer.train(invented_words(150_000, seed=seed), config.vocab_size)
    if tokenizer.vocab_size != config.vocab_size:
        raise ValueError(f"the invented text gave {tokenizer.vocab_size} tokens, not {config.vocab_size}")
    weights = _with_visible_faults(Llama(config).initialize(seed), seed).to_hf_weights()
    with atomic_folder(folder) as building:
        write_model_files(building, config, weights, tokenizer)
        seal_model_folder(building)


@torch.no_grad()
def _with_visible_faults(model: Llama, seed: int) -> Llama:
    """Make a converter's fault show in the logits: uneven norms, and queries and keys doubled.

    Fresh attention is nearly uniform: leaving out llama.cpp's reordering of q and k gave a cosine of 0.990
    with PyTorch's logits, and 0.807 with them doubled (f16 conversion done right: 1.000; 85m, 2026-11-22).
    """
    generator = torch.Generator().manual_seed(seed)
    rotated = model.config.q_size + model.config.kv_size
    for name, parameter in model.named_parameters():
        if name.endswith("qkv.weight"):
            parameter[:rotated] *= 2
        elif parameter.dim() == 1:
            parameter *= 1 + 0.2 * torch.randn(parameter.shape, generator=generator)
    return model
