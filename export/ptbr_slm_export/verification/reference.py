"""A Llama in NumPy, part by part: what each value of an exported graph should be, given the one before it.

A part is compared given what the graph itself fed it. So an error does not travel: rounded activations do not
add up over the layers, limits stay tight, and a fault shows in its own part and nowhere else. That the parts
joined together are PyTorch's model is a test (tests/export/test_locate.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ptbr_slm.config import ModelConfig
from ptbr_slm.storage.weights import EMBEDDING, HEAD
from ptbr_slm_export.llama import Floats, Ids, attend, rms_norm
from ptbr_slm_export.verification.stored_weights import EXACT_HEAD

Read = Callable[[str], Floats]
"""Llama's name of a weight -> the weight; the head has its own name also where it is tied."""


@dataclass(frozen=True, slots=True)
class Part:
    """How far one part of a graph lies from what it should be, on one text."""

    layer: int | None
    """None for the embedding, the last norm and the head."""
    name: str
    """`embedding`, `attention_norm`, `qkv`, `attention`, ..."""
    value: str
    """Its name in the graph."""
    is_product: bool
    """Whether it multiplies with a matrix: int8 activations round there, and nowhere else."""
    relative: float
    """Largest |found - expected| / |expected| of a position."""
    largest: float
    """Largest difference of a single number; infinite where one is NaN."""
    position: int
    """Of the text, where `relative` is."""


def parts(config: ModelConfig, read: Read, tokens: Ids, seen: Mapping[str, Floats]) -> list[Part]:
    """Every part whose value is among `seen` (name in the graph -> (T, width)), from embedding to head.

    What the graph has under no name of ours is computed here and shows in the part after it.
    """
    forward = _Forward(config, read, seen)
    forward.run(tokens)
    return forward.parts


def values(config: ModelConfig, read: Read, tokens: Ids) -> dict[str, Floats]:
    """Every part's value where nothing is rounded on the way: a name in the graph -> (T, width)."""
    forward = _Forward(config, read, {})
    forward.run(tokens)
    return forward.values


class _Forward:
    """Computes the layers, going on with the graph's own value of each part once that is compared."""

    def __init__(self, config: ModelConfig, read: Read, seen: Mapping[str, Floats]) -> None:
        self.config, self.read, self.seen = config, read, seen
        self.parts: list[Part] = []
        self.values: dict[str, Floats] = {}
        self.layer: int | None = None

    def run(self, tokens: Ids) -> Floats:
        """tokens (T,) -> logits (T, V)."""
        table = self.read(EMBEDDING)
        stream = self._compare("embedding", ["embed.stream", "embed"], table[tokens])
        for layer in range(self.config.num_layers):
            self.layer = layer
            stream = self._feed_forward(self._attention(stream))
        self.layer = None
        normed = self._compare("norm", ["norm.cast", "norm"], self._norm(stream, "model.norm.weight"))
        names = ["head.coarse", "logits"]
        coarse = self._compare("head", names, normed @ self.read(HEAD).T, is_product=True)  # (T, V)
        best = self.seen.get("head.best.coarse")  # (T, best)
        if best is None:
            return coarse
        return self._compare("head_best", ["logits"], self._rescored(normed, coarse, best.shape[1]))

    def _rescored(self, normed: Floats, coarse: Floats, best: int) -> Floats:
        """coarse (T, V) with its `best` largest logits a position computed from the exact head.

        Of logits that are equal at the border any may be among them: there the graph's own choice counts.
        """
        exact = normed @ self.read(EXACT_HEAD).T
        border = np.partition(coarse, -best, axis=1)[:, -best, None]
        tied, found = coarse == border, self.seen["logits"]
        nearer = np.where(np.abs(found - exact) < np.abs(found - coarse), exact, coarse)
        return np.where(coarse > border, exact, np.where(tied, nearer, coarse))

    def _attention(self, stream: Floats) -> Floats:
        """The stream (T, C) with the layer's attention added."""
        weight, here = f"model.layers.{self.layer}.", f"layers.{self.layer}."
        normed = self._norm(stream, weight + "input_layernorm.weight")
        normed = self._compare("attention_norm", _ends(here + "attention_norm", ".cast", ""), normed)
        qkv = np.concatenate([self.read(f"{weight}self_attn.{name}_proj.weight") for name in "qkv"])
        heads = self._compare("qkv", [here + "qkv"], normed @ qkv.T, is_product=True)  # (T, (H + 2K) * D)
        names = _ends(here + "attention", ".joined", "")
        mixed = self._compare("attention", names, self._attend(heads))  # (T, H * D)
        out = mixed @ self.read(weight + "self_attn.o_proj.weight").T
        out = self._compare("attention_out", [here + "attention_out"], out, is_product=True)
        names = _ends(here, "attention_out.stream", "feed_forward_norm.stream")
        return self._compare("attention_add", names, stream + out)

    def _feed_forward(self, stream: Floats) -> Floats:
        """The stream (T, C) with the layer's feed-forward added."""
        assert self.layer is not None
        weight, here = f"model.layers.{self.layer}.", f"layers.{self.layer}."
        normed = self._norm(stream, weight + "post_attention_layernorm.weight")
        normed = self._compare("feed_forward_norm", _ends(here + "feed_forward_norm", ".cast", ""), normed)
        gate = normed @ self.read(weight + "mlp.gate_proj.weight").T
        gate = self._compare("gate", [here + "gate"], gate, is_product=True)
        up = normed @ self.read(weight + "mlp.up_proj.weight").T
        up = self._compare("up", [here + "up"], up, is_product=True)
        gated = self._compare("silu", [here + "gated"], gate / (1 + np.exp(-gate)) * up)
        down = gated @ self.read(weight + "mlp.down_proj.weight").T
        down = self._compare("down", [here + "down"], down, is_product=True)
        after = f"layers.{self.layer + 1}.attention_" if self.layer + 1 < self.config.num_layers else ""
        names = [here + "down.stream", after + "norm.stream"]
        return self._compare("feed_forward_add", names, stream + down)

    def _norm(self, x: Floats, gain: str) -> Floats:
        return rms_norm(x, self.read(gain), self.config.norm_eps)

    def _attend(self, qkv: Floats) -> Floats:
        """(T, (H + 2K) * D) -> (T, H * D)."""
        gains = None
        if self.config.qk_norm:
            prefix = f"model.layers.{self.layer}.self_attn."
            gains = self.read(prefix + "q_norm.weight"), self.read(prefix + "k_norm.weight")
        return attend(self.config, qkv, gains)

    def _compare(
        self, name: str, values: Sequence[str], expected: Floats, *, is_product: bool = False
    ) -> Floats:
        """Note how far the graph's value (the first of `values` it has) is from `expected`; go on with it."""
        self.values |= dict.fromkeys(values, expected)
        value = next((value for value in values if value in self.seen), None)
        if value is None:
            return expected
        found = self.seen[value]
        relative, largest = distances(expected, found)
        position = int(relative.argmax())
        worst, peak = float(relative[position]), float(largest.max())
        self.parts.append(Part(self.layer, name, value, is_product, worst, peak, position))
        return found


def _ends(name: str, *ends: str) -> list[str]:
    return [name + end for end in ends]


def distances(expected: Floats, found: Floats) -> tuple[Floats, Floats]:
    """(T,) relative errors and (T,) largest differences; infinite where something is no number."""
    difference = found - expected
    norms = np.linalg.norm(expected, axis=-1)
    relative = np.linalg.norm(difference, axis=-1) / np.where(norms > 0, norms, 1.0)
    largest = np.abs(difference).max(axis=-1)
    return np.nan_to_num(relative, nan=np.inf), np.nan_to_num(largest, nan=np.inf)
