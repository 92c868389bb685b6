"""Draft layers for tests, not trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ptbr_slm.storage.draft_folder import FOLDER, DraftConfig, write_draft
from ptbr_slm.storage.model_folder import ModelFolder

HEAD_TOKENS = 100


def write_random_draft(model: Path, seed: int = 0) -> Path:
    """A random draft layer in a model folder."""
    from ptbr_slm.draft_layer import DraftLayer

    folder = ModelFolder(model)
    config = DraftConfig(
        hidden_size=folder.config.hidden_size,
        intermediate_size=96,
        head_tokens=HEAD_TOKENS,
        vocab_size=folder.config.vocab_size,
        norm_eps=folder.config.norm_eps,
    )
    chance = np.random.default_rng(seed)
    tokens = np.sort(chance.permutation(folder.config.vocab_size)[:HEAD_TOKENS]).astype(np.int64)
    layer = DraftLayer(config, tokens)
    weights = {
        name: chance.standard_normal(shape, dtype=np.float32) * (0.2 if len(shape) == 2 else 1.0)
        for name, shape in config.shapes.items()
    }
    layer.load(lambda name, shape: weights[name])
    facts = {"model_sha256": folder.sha256, "acceptance": 0.5}
    write_draft(model / FOLDER, config, layer.to_arrays(), tokens, facts)
    return model / FOLDER
