"""Model folders for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ptbr_slm.config import ModelConfig
from ptbr_slm.storage.atomic import atomic_folder
from ptbr_slm.storage.model_folder import seal_model_folder, write_model_files
from ptbr_slm.tokenizer import Tokenizer

Weights = Mapping[str, npt.NDArray[np.float32]]


def random_weights(config: ModelConfig, seed: int = 0, *, scale: float = 1.0) -> dict[str, Any]:
    """Those of a new model, by their Llama names. scale: of the matrices; from about 5 on, the next token of
    a random model is rarely a close call.
    """
    from ptbr_slm.model import Llama

    weights = Llama(config).initialize(seed).to_hf_weights()
    return {name: weight * (scale if weight.ndim == 2 else 1) for name, weight in weights.items()}


def write_model(
    folder: Path,
    config: ModelConfig,
    tokenizer: Tokenizer,
    weights: Weights | None = None,
    **facts: Any,
) -> Path:
    """Write a sealed model folder, as `train` leaves it. weights: `random_weights(config)` where not given.
    facts: of its manifest.
    """
    weights = random_weights(config) if weights is None else weights
    with atomic_folder(folder) as temporary:
        write_model_files(temporary, config, weights, tokenizer)
        seal_model_folder(temporary, **facts)
    return folder
