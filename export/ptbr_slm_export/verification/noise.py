"""How far fp32 itself lies from exact arithmetic on one model: no export can be asked to agree better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ptbr_slm.config import ModelConfig
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.storage.weights import WeightReader
from ptbr_slm_export.graphs.weights import Floats, LlamaWeights
from ptbr_slm_export.quantization.activations import Activations

TOKENS = 128
"""Read in fp64, one layer in memory at a time: about 4 s for 135M weights on two cores."""


def measure_noise(model: ModelFolder, window: Sequence[int], logits: Floats) -> float:
    """Largest distance of `logits` (T, V), which PyTorch computed in fp32 for `window` (T,), from fp64.

    On the first `TOKENS` of them. 0 where something is no number: then nothing is forgiven.
    """
    tokens = np.array(window[:TOKENS], dtype=np.int64)
    doubled = _Double(model.config, model.weights)
    (exact,) = Activations(model.config, doubled, [tokens], watching=False).logits()
    distance = float(np.abs(exact - logits[: len(tokens)]).max())
    return distance if np.isfinite(distance) else 0.0


class _Double(LlamaWeights):
    """The same weights in fp64: NumPy then computes everything in it."""

    def __init__(self, config: ModelConfig, reader: WeightReader) -> None:
        super().__init__(config, reader)
        self._read = lambda name, shape: reader.read(name, shape).astype(np.float64)
