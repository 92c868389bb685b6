"""The reference engine: a model folder in PyTorch, one KV cache a slot. Only this file here imports torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ptbr_slm.errors import SlmError
from ptbr_slm.gpus import (
    VISIBLE_VARIABLE,
    Obstacle,
    TorchBuild,
    find_gpus,
    missing_kernels,
    torch_build,
    why_unused,
)
from ptbr_slm.model import KVCache, Llama
from ptbr_slm.runtime.protocol import (
    PREFILL_CHUNK,
    Floats,
    bucket,
    check_capacity,
    check_ids,
    check_length,
    closed_error,
)
from ptbr_slm.runtime.sampling.params import Draw
from ptbr_slm.storage.model_folder import ModelFolder

ReadWeight = Callable[[str, tuple[int, ...]], Floats]
"""Llama's name and shape of a weight -> the weight."""


class TorchEngine:
    """`Engine` over `ptbr_slm.model.Llama`: plain and exact, the measure for the exported graphs."""

    name = "torch"
    precision = "fp32"
    draws_tokens = False

    def __init__(self, folder: ModelFolder, device: str = "auto", *, read: ReadWeight | None = None) -> None:
        """Open a model folder. device: `auto`, `cpu`, `cuda`. Raises E_PROVIDER, E_MODEL_INVALID...

        read: where the weights come from instead, such as the rounded ones of an export.
        """
        folder.check()
        self.device = _choose_device(device)
        self.tokenizer = folder.tokenizer
        self.config = folder.config
        model = Llama(self.config).load_hf_weights(read or folder.weights.read)
        self._model: Llama | None = model.to(self.device).eval().requires_grad_(False)
        self._file_bytes = sum(path.stat().st_size for path in folder.path.glob("*.safetensors"))
        self._bits_per_byte = None if folder.manifest is None else folder.manifest.extra.get("bits_per_byte")
        self._slots: dict[int, KVCache] = {}
        self._limit = self.config.max_seq_len

    def reset(self, slots: int, capacity: int) -> None:
        """See `Engine.reset`."""
        check_capacity(self.config, capacity)
        self._limit = capacity
        self._slots = {slot: self._new_cache(0) for slot in range(slots)}

    def open_slot(self) -> int:
        """See `Engine.open_slot`."""
        slot = next(slot for slot in range(len(self._slots) + 1) if slot not in self._slots)
        self._slots[slot] = self._new_cache(0)
        return slot

    def close_slot(self, slot: int) -> None:
        """See `Engine.close_slot`."""
        self._slots.pop(slot, None)

    def length(self, slot: int) -> int:
        """See `Engine.length`."""
        return self._slots[slot].length

    def truncate(self, slot: int, length: int) -> None:
        """See `Engine.truncate`."""
        self._slots[slot].length = min(length, self._slots[slot].length)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """See `Engine.copy_prefix`."""
        cache = self._slots[source]
        length = min(length, cache.length)
        copy = self._slots[target] = self._new_cache(length)
        copy.keys[:, :, :, :length] = cache.keys[:, :, :, :length]  # (layers, 1, K, T, D)
        copy.values[:, :, :, :length] = cache.values[:, :, :, :length]
        copy.length = length

    @property
    def kv_bytes(self) -> int:
        """See `Engine.kv_bytes`."""
        return sum(cache.keys.nbytes + cache.values.nbytes for cache in self._slots.values())

    @torch.inference_mode()
    def prefill(self, slot: int, tokens: Sequence[int]) -> Floats:
        """See `Engine.prefill`."""
        check_ids(self.config, tokens)
        check_length(self._slots[slot].length + len(tokens), self._limit)
        for start in range(0, len(tokens), PREFILL_CHUNK):
            states = self._hidden(slot, tokens[start : start + PREFILL_CHUNK])
        logits: Floats = self._head(states[:, -1])[0]
        return logits

    @torch.inference_mode()
    def extend(self, slot: int, tokens: Sequence[int]) -> Floats:
        """See `Engine.extend`."""
        check_ids(self.config, tokens)
        check_length(self._slots[slot].length + len(tokens), self._limit)
        chunks = range(0, len(tokens), PREFILL_CHUNK)
        parts = [self._head(self._hidden(slot, tokens[start : start + PREFILL_CHUNK])[0]) for start in chunks]
        return np.concatenate(parts)

    @torch.inference_mode()
    def decode(self, slots: Sequence[int], tokens: Sequence[int]) -> Floats:
        """See `Engine.decode`. Slot by slot: their caches differ in length."""
        check_ids(self.config, tokens)
        check_length(max(self._slots[slot].length for slot in slots) + 1, self._limit)
        states = [self._hidden(slot, [token]) for slot, token in zip(slots, tokens, strict=True)]
        return self._head(torch.cat(states)[:, -1])

    def decode_drawn(
        self, slots: Sequence[int], tokens: Sequence[int], draws: Sequence[Draw | None]
    ) -> Sequence[int | Floats]:
        """See `Engine.decode_drawn`: the host chooses from these logits."""
        return list(self.decode(slots, tokens))

    @torch.inference_mode()
    def logits(self, tokens: Sequence[int]) -> Floats:
        """See `Engine.logits`."""
        check_ids(self.config, tokens)
        check_length(len(tokens), self.config.max_seq_len)
        ids = torch.tensor([list(tokens)], device=self.device)  # (1, T)
        return self._head(self._llama().hidden(ids)[0])

    def describe(self) -> dict[str, Any]:
        """See `Engine.describe`."""
        return {"file_bytes": self._file_bytes, "bits_per_byte": self._bits_per_byte, "target": self.device}

    def close(self) -> None:
        """See `Engine.close`."""
        self._model = None
        self._slots = {}

    def _llama(self) -> Llama:
        if self._model is None:
            raise closed_error()
        return self._model

    def _hidden(self, slot: int, tokens: Sequence[int]) -> torch.Tensor:
        """Run tokens on a slot, growing its cache first where needed: (1, T, C)."""
        model, cache = self._llama(), self._slots[slot]
        needed = cache.length + len(tokens)
        if needed > cache.keys.shape[3]:
            larger = self._new_cache(needed)
            larger.keys[:, :, :, : cache.length] = cache.keys[:, :, :, : cache.length]
            larger.values[:, :, :, : cache.length] = cache.values[:, :, :, : cache.length]
            larger.length = cache.length
            self._slots[slot] = cache = larger
        return model.hidden(torch.tensor([list(tokens)], device=self.device), cache)

    def _new_cache(self, tokens: int) -> KVCache:
        capacity = bucket(tokens, self.config.max_seq_len)
        return KVCache(self.config, 1, capacity, self._llama().embed.weight)

    def _head(self, states: torch.Tensor) -> Floats:
        logits: torch.Tensor = self._llama().head(states)
        return np.array(logits.cpu().numpy(), dtype=np.float32)


def _choose_device(asked: str) -> str:
    """`auto` takes a card that PyTorch has kernels for, else the CPU; one asked for is had or refused."""
    if asked == "cpu":
        return asked
    seen = torch.cuda.is_available()
    obstacle = _lacking_kernels() if seen else None
    if seen and obstacle is None:
        return "cuda"
    if asked == "auto":
        return "cpu"
    if not seen:
        obstacle = why_unused(find_gpus(), torch_build({}), os.environ.get(VISIBLE_VARIABLE))
    if obstacle is not None:
        raise SlmError(
            "E_PROVIDER",
            f"foi pedido device=cuda, mas {obstacle.message}.",
            where=obstacle.where,
            hint=f"{obstacle.fix};  ou use --device cpu",
        )
    raise SlmError(
        "E_PROVIDER",
        "foi pedido device=cuda, mas este PyTorch não encontra uma GPU NVIDIA.",
        where="--device cuda",
        hint="Use --device cpu, ou veja o que falta com:  ptbr-slm doctor",
    )


def _lacking_kernels() -> Obstacle | None:
    """A P100, say, which PyTorch sees and has no code for: its first operation would fail."""
    archs = tuple(torch.cuda.get_arch_list()) if torch.version.cuda else ()
    build = TorchBuild(cuda=torch.version.cuda, sees_gpu=True, archs=archs, version=str(torch.__version__))
    name, capability = torch.cuda.get_device_name(0), torch.cuda.get_device_capability(0)
    return missing_kernels(name, capability, build) if archs else None
