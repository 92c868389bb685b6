"""transformers as the peer of `bench generate`: a static cache and, on a GPU, its forward compiled.

Only what it is compared by: the prompt in one call, then one token in and its logits out, greedy, as ours.
Written after transformers' own guide (a StaticCache, `torch.compile(mode="reduce-overhead")` for the decode
step). On a GPU it has never run yet; on a CPU it does, uncompiled (tests/bench/test_generate.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.model_folder import read_config

Floats = npt.NDArray[np.float32]


class TransformersPlayer:
    """LlamaForCausalLM of a model folder. All rows are read and decoded together, in fp16 on a GPU."""

    def __init__(self, folder: Path, device: str) -> None:
        """Raises E_DEPENDENCY where transformers is not installed, E_MODEL_INVALID."""
        import importlib.util

        if importlib.util.find_spec("transformers") is None:
            raise SlmError(
                "E_DEPENDENCY",
                "a comparação com o transformers precisa do pacote transformers.",
                where="--peer transformers",
                hint="Instale com:  pip install transformers",
            )
        import torch
        from transformers import AutoModelForCausalLM

        self._torch: Any = torch
        self.config = read_config(folder)
        on_gpu = device != "cpu" and torch.cuda.is_available()
        self.device = "cuda" if on_gpu else "cpu"
        self.precision = "fp16" if on_gpu else "fp32"
        kind = torch.float16 if on_gpu else torch.float32
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=kind)
        self._model: Any = model.to(self.device).eval()
        self._step: Any = torch.compile(self._model, mode="reduce-overhead") if on_gpu else self._model
        self._shape = (0, 0)
        self._cache: Any = None
        self._length = 0

    @property
    def device_bytes(self) -> int | None:
        """Largest memory on the GPU, as PyTorch allocated it."""
        return int(self._torch.cuda.max_memory_allocated()) if self.device == "cuda" else None

    @property
    def kv_bytes(self) -> int | None:
        """Memory of keys and values."""
        config, element = self.config, 2 if self.device == "cuda" else 4
        rows, capacity = self._shape
        return 2 * config.num_layers * config.kv_size * rows * capacity * element

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> Floats:
        """(rows, V) logits. The cache is kept from round to round, so that nothing is compiled anew."""
        from transformers import StaticCache

        if self._shape != (len(prompts), capacity):
            self._shape = (len(prompts), capacity)
            self._cache = StaticCache(config=self._model.config, max_cache_len=capacity)
        self._cache.reset()
        self._length = 0
        return self._run(self._model, prompts)

    def decode(self, tokens: Sequence[int]) -> Floats:
        """(rows, V) logits after one token more in each."""
        return self._run(self._step, [[token] for token in tokens])

    def choose(self, tokens: Sequence[int]) -> list[int]:
        """The most probable token of each row, taken from the logits on the host."""
        best: list[int] = self.decode(tokens).argmax(axis=1).tolist()
        return best

    def close(self) -> None:
        """Free the memory."""
        self._model = self._step = self._cache = None

    def _run(self, model: Any, tokens: Sequence[Sequence[int]]) -> Floats:
        torch, start, count = self._torch, self._length, len(tokens[0])
        self._length += count
        with torch.no_grad():  # not inference_mode: the cache is written again outside of it
            output = model(
                torch.tensor([list(row) for row in tokens], device=self.device),
                past_key_values=self._cache,
                cache_position=torch.arange(start, start + count, device=self.device),
                use_cache=True,
                logits_to_keep=1,
            )
            return np.asarray(output.logits[:, -1].float().cpu().numpy())
