"""The reference engine: a model folder in PyTorch, one KV cache a slot. Only this file here imports torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ptbr_slm.draft_layer import DraftLayer
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
from ptbr_slm.runtime.drafting.layer import DraftScores
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
from ptbr_slm.runtime.targets import Ids, Targets, TokenScores, branch_limit
from ptbr_slm.storage.draft_folder import DraftFolder
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer

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
        chosen = _choose_device(device)
        model = Llama(folder.config).load_hf_weights(read or folder.weights.read)
        facts = {
            "file_bytes": sum(path.stat().st_size for path in folder.path.glob("*.safetensors")),
            "bits_per_byte": None if folder.manifest is None else folder.manifest.extra.get("bits_per_byte"),
        }
        self._hold(model.to(chosen).eval().requires_grad_(False), folder.tokenizer, facts)

    @classmethod
    def over(cls, model: Llama, tokenizer: Tokenizer) -> TorchEngine:
        """Over a model in memory, such as one in training, where it is. It stays the caller's."""
        engine = cls.__new__(cls)
        engine._hold(model, tokenizer, {})
        return engine

    def _hold(self, model: Llama, tokenizer: Tokenizer, facts: dict[str, Any]) -> None:
        self.tokenizer, self.config = tokenizer, model.config
        self.device = model.embed.weight.device.type
        self._model: Llama | None = model
        self._facts = facts
        self._slots: dict[int, KVCache] = {}
        self._limit = self.config.max_seq_len
        self._layer: DraftLayer | None = None
        self._held: tuple[int, int, torch.Tensor] | None = None
        """Slot, its tokens before the last call, and the states (T, C) after each of that call's."""

    def with_draft(self, draft: DraftFolder) -> TorchEngine:
        """With a model's draft layer beside it. Raises E_DRAFT."""
        layer = DraftLayer(draft.config, draft.tokens).load(draft.read)
        self._layer = layer.to(self._llama().embed.weight.device).eval().requires_grad_(False)
        self._acceptance = float(draft.facts.get("acceptance", 0.5))
        return self

    def reset(self, slots: int, capacity: int) -> None:
        """See `Engine.reset`."""
        check_capacity(self.config, capacity)
        self._limit = capacity
        self._held = None
        self._slots = {slot: self._new_cache(0) for slot in range(slots)}

    def open_slot(self) -> int:
        """See `Engine.open_slot`."""
        slot = next(slot for slot in range(len(self._slots) + 1) if slot not in self._slots)
        self._slots[slot] = self._new_cache(0)
        self._held = None
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
        self._held = None

    @property
    def draft_acceptance(self) -> float | None:
        """See `Engine.draft_acceptance`."""
        return None if self._layer is None else self._acceptance

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
    def extend(self, slot: int, tokens: Sequence[int], *, lent: bool = False) -> Floats:
        """See `Engine.extend`."""
        check_ids(self.config, tokens)
        check_length(self._slots[slot].length + len(tokens), self._limit)
        chunks = range(0, len(tokens), PREFILL_CHUNK)
        parts = [self._head(self._hidden(slot, tokens[start : start + PREFILL_CHUNK])[0]) for start in chunks]
        return np.concatenate(parts)

    @torch.inference_mode()
    def decode(self, slots: Sequence[int], tokens: Sequence[int], *, lent: bool = False) -> Floats:
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
    def draft(self, slot: int, token: int) -> DraftScores | None:
        """See `Engine.draft`."""
        if self._layer is None or self._held is None or self._held[0] != slot:
            return None
        check_ids(self.config, [token])
        _, start, states = self._held
        row = self._slots[slot].length - 1 - start
        if not 0 <= row < len(states):
            return None
        embedded = self._llama().embed(torch.tensor(token, device=self.device))  # (C,)
        scores = self._layer(states[row], embedded)  # (K,)
        return DraftScores(self._layer.tokens.cpu().numpy(), scores.float().cpu().numpy())

    @torch.inference_mode()
    def logits(self, tokens: Sequence[int]) -> Floats:
        """See `Engine.logits`."""
        check_ids(self.config, tokens)
        check_length(len(tokens), self.config.max_seq_len)
        ids = torch.tensor([list(tokens)], device=self.device)  # (1, T)
        return self._head(self._llama().hidden(ids)[0])

    def scoring(self) -> TorchScoring:
        """See `Engine.scoring`."""
        return TorchScoring(self._llama())

    def describe(self) -> dict[str, Any]:
        """See `Engine.describe`."""
        return {**self._facts, "target": self.device}

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
        states = model.hidden(torch.tensor([list(tokens)], device=self.device), cache)
        self._held = slot, cache.length - len(tokens), states[0]
        return states

    def _new_cache(self, tokens: int) -> KVCache:
        capacity = bucket(tokens, self.config.max_seq_len)
        return KVCache(self.config, 1, capacity, self._llama().embed.weight)

    def _head(self, states: torch.Tensor) -> Floats:
        logits: torch.Tensor = self._llama().head(states)
        return np.array(logits.cpu().numpy(), dtype=np.float32)


_TEXTS_TOKENS = {"cpu": PREFILL_CHUNK, "cuda": 16 * PREFILL_CHUNK}
"""Tokens of texts that run together: a GPU is busy with some thousands."""

_HEAD_ROWS = 64
"""Rows of logits in memory at once: 8 MiB at 32,000 tokens."""


class TorchScoring:
    """`ScoringSession` in PyTorch: the branches of one trunk run as one batch, padded on the right."""

    branch_tokens = PREFILL_CHUNK

    def __init__(self, model: Llama) -> None:
        self._model: Llama | None = model
        config = model.config
        self._token_bytes = 2 * config.num_layers * config.kv_size * model.embed.weight.element_size()
        self._device = model.embed.weight.device
        self.texts_tokens = _TEXTS_TOKENS[self._device.type]
        self.prepare(1)

    def prepare(self, longest: int) -> None:
        """See `ScoringSession.prepare`."""
        self._trunk = self._new_cache(1, longest)
        self._intact = 0
        """Tokens of the trunk that are as they were when a branch last left it."""
        self._limit = self.branches_free = max(1, branch_limit(longest * self._token_bytes))
        self._groups: list[_Group] = []
        self._scores: list[TokenScores] = []

    def truncate(self, length: int) -> None:
        """See `ScoringSession.truncate`."""
        self._trunk.length = min(length, self._trunk.length)
        self._intact = min(self._intact, self._trunk.length)

    @torch.inference_mode()
    def append(self, tokens: Sequence[int], targets: Targets) -> TokenScores:
        """See `ScoringSession.append`."""
        states = self._llama().hidden(self._tensor([tokens]), self._trunk)  # (1, T, C)
        return self._score(states, [targets])[0]

    @torch.inference_mode()
    def branch(self, tokens: Sequence[int], targets: Targets) -> None:
        """See `ScoringSession.branch`."""
        length = self._trunk.length
        if not self._groups or length != self._intact or length != self._groups[-1].past.length:
            past = self._new_cache(1, length)
            _copy_cache(self._trunk, past)
            self._groups.append(_Group(past))
            self._intact = length
        self._groups[-1].branches.append((tokens, targets))
        self.branches_free -= 1

    @torch.inference_mode()
    def step(self) -> bool:
        """See `ScoringSession.step`: all branches of one group."""
        if self._groups:
            group = self._groups.pop(0)
            texts = [tokens for tokens, _ in group.branches]
            ids = self._tensor(texts)
            cache = self._new_cache(len(texts), group.past.length + ids.shape[1])
            _copy_cache(group.past, cache)
            states = self._llama().hidden(ids, cache)  # (B, T, C)
            self._scores += self._score(states, [targets for _, targets in group.branches])
        return bool(self._groups)

    def take(self) -> list[TokenScores]:
        """See `ScoringSession.take`."""
        scores, self._scores = self._scores, []
        self.branches_free = self._limit
        return scores

    @torch.inference_mode()
    def texts(self, texts: Sequence[Sequence[int]], targets: Sequence[Targets]) -> list[TokenScores]:
        """See `ScoringSession.texts`."""
        return self._score(self._llama().hidden(self._tensor(texts)), targets)

    def close(self) -> None:
        """See `ScoringSession.close`."""
        self.prepare(1)
        self._model = None

    def _llama(self) -> Llama:
        if self._model is None:
            raise closed_error()
        return self._model

    def _tensor(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """(B, T) ids, padded on the right with any token."""
        longest = max(map(len, texts))
        rows = [[*text, *[0] * (longest - len(text))] for text in texts]
        return torch.tensor(rows, device=self._device)

    def _new_cache(self, texts: int, tokens: int) -> KVCache:
        model = self._llama()
        return KVCache(model.config, texts, tokens, model.embed.weight)

    def _score(self, states: torch.Tensor, targets: Sequence[Targets]) -> list[TokenScores]:
        """Targets of each text from its states (B, T, C). Only the positions asked for meet the head."""
        asked = [each.positions() for each in targets]
        firsts = np.cumsum([0] + [len(positions) for positions, _ in asked])
        texts = np.repeat(np.arange(len(asked)), np.diff(firsts))
        where = np.concatenate([positions for positions, _ in asked])
        chosen = states[torch.from_numpy(texts), torch.from_numpy(where)]  # (K, C)
        rows = np.concatenate([first + own for first, (_, own) in zip(firsts, asked, strict=False)])
        tokens = np.concatenate([each.tokens for each in targets])
        scores = self._score_rows(chosen, rows, tokens)
        ends = np.cumsum([len(each.tokens) for each in targets])[:-1]
        parts = zip(np.split(scores.logprobs, ends), np.split(scores.greedy, ends), strict=True)
        return [TokenScores(logprobs, greedy) for logprobs, greedy in parts]

    def _score_rows(self, states: torch.Tensor, rows: Ids, tokens: Ids) -> TokenScores:
        """Tokens (N,), each under the row (N,) of states (K, C) that is its own."""
        logprobs, greedy = np.empty(len(rows)), np.empty(len(rows), dtype=np.bool_)
        for start in range(0, len(states), _HEAD_ROWS):
            logits = self._llama().head(states[start : start + _HEAD_ROWS])  # (k, V)
            peaks, best = logits.max(dim=1)
            totals = (logits - peaks[:, None]).exp().sum(dim=1, dtype=torch.float64).log() + peaks
            here = (rows >= start) & (rows < start + len(logits))
            own = torch.from_numpy(rows[here] - start).to(self._device)
            asked = torch.from_numpy(tokens[here]).to(self._device)
            logprobs[here] = (logits[own, asked] - totals[own]).cpu().numpy()
            greedy[here] = (best[own] == asked).cpu().numpy()
        return TokenScores(logprobs, greedy)


@dataclass(frozen=True, slots=True)
class _Group:
    """Branches that leave the trunk at one point."""

    past: KVCache
    branches: list[tuple[Sequence[int], Targets]] = field(default_factory=list)


def _copy_cache(source: KVCache, target: KVCache) -> None:
    """The tokens of a cache of one text, for every text of another."""
    length = target.length = source.length
    target.keys[:, :, :, :length] = source.keys[:, :, :, :length]  # (layers, B, K, T, D)
    target.values[:, :, :, :length] = source.values[:, :, :, :length]


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
