"""Which blocks and which head this machine multiplies fastest: measured, in about two seconds.

An order seen on one CPU is not another's: with AVX-512 blocks of 256 are the fastest, with AVX2 alone and an
int8 head blocks of 128. So the model's own graph, with random codes and only as many layers as it takes for
the weights to come from memory, runs steps of one token under each candidate. One session is open at a time:
the threads of another, even idle, would spin on the same cores.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from ptbr_slm.config import ModelConfig
from ptbr_slm.system import processor_name
from ptbr_slm.text import number
from ptbr_slm_export.graphs.gqa import build_gqa_graph
from ptbr_slm_export.graphs.projections import QuantizedProjections
from ptbr_slm_export.llama import Floats, LlamaWeights
from ptbr_slm_export.quantization.blocks import QuantizedMatrix
from ptbr_slm_export.quantization.quantizer import Quantizer, block_for
from ptbr_slm_export.quantization.recipe import Head, Recipe, with_head

BLOCKS = (32, 64, 128, 256)
"""Of the layers: by gptq none costs more bits per byte than the default, 256 (docs/decisions/0111)."""
FROM_HEADS: tuple[Head, ...] = ("int8", "int4-rescored")
"""Likewise. An int4 head of which nothing is scored again is faster, and costs more."""
MARGIN = 0.05
"""How much faster than the default another must be: a difference below is chance."""
WEIGHTS = 24 << 20
"""Bytes of the layers that run, or the whole model's: with the head more than most caches hold."""
WARM_UP, STEPS, PAST = 5, 100, 16
"""Steps not counted, counted, and tokens in the cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fastest:
    """What was measured, and the recipe that follows."""

    recipe: Recipe
    cpu: str
    threads: int
    layers: int
    """How many of the model's ran."""
    block_microseconds: dict[str, float]
    """Blocks of the layers -> a step of one token, the tenth percentile of many."""
    head_microseconds: dict[str, float]
    """Head -> the same, in the chosen blocks."""

    def as_dict(self) -> dict[str, Any]:
        """For the manifest and `--json`, where the recipe stands already."""
        return {name: value for name, value in asdict(self).items() if name != "recipe"}

    def __str__(self) -> str:
        blocks = ", ".join(f"{name} {number(us / 1000, 2)}" for name, us in self.block_microseconds.items())
        heads = ", ".join(f"{name} {number(us / 1000, 2)}" for name, us in self.head_microseconds.items())
        return (
            f"medido nesta máquina, em ms por token de {self.layers} camadas: blocos de {blocks}; "
            f"saída {heads}. Escolhidos: blocos de {self.recipe.block}, saída {self.recipe.head}"
        )


def fastest(config: ModelConfig, recipe: Recipe, threads: int) -> Fastest:
    """`recipe`, an int4 one, with the blocks and then the head that run fastest on `threads` threads here."""
    layers = _layers(config)
    shape = replace(config, num_layers=layers)
    times: dict[Recipe, float] = {}

    def measured(candidates: Mapping[str, Recipe], kept: Recipe) -> tuple[Recipe, dict[str, float]]:
        """The one to take, and microseconds of each."""
        for candidate in candidates.values():
            if candidate not in times:
                times[candidate] = step_microseconds(shape, candidate, threads)
        first = min(candidates.values(), key=times.__getitem__)
        for again in (first, kept) if first != kept else ():  # another program may have been at work
            times[again] = min(times[again], step_microseconds(shape, again, threads))
        chosen = first if times[first] < (1 - MARGIN) * times[kept] else kept
        return chosen, {name: round(times[candidate], 1) for name, candidate in candidates.items()}

    in_blocks = {str(block): replace(recipe, block=block) for block in BLOCKS}
    recipe, block_times = measured({**in_blocks, str(recipe.block): recipe}, recipe)
    with_heads: dict[str, Recipe] = {head: with_head(recipe, head) for head in FROM_HEADS}
    recipe, head_times = measured({**with_heads, recipe.head: recipe}, recipe)
    return Fastest(
        recipe=recipe,
        cpu=processor_name(),
        threads=threads,
        layers=layers,
        block_microseconds=block_times,
        head_microseconds=head_times,
    )


def step_microseconds(config: ModelConfig, recipe: Recipe, threads: int) -> float:
    """A step of one token of a model of this shape: the tenth percentile of `STEPS`."""
    import onnxruntime as ort

    weights = LlamaWeights(config, lambda name, shape: np.broadcast_to(np.float32(1), shape))
    graph = build_gqa_graph(config, weights, QuantizedProjections(weights, _AnyCodes(recipe)))
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    serialized = ir.to_proto(graph).SerializeToString()
    session = ort.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])
    past = min(PAST, config.max_seq_len - 1)
    cache = np.zeros((1, config.num_kv_heads, past + 1, config.head_dim), dtype=np.float32)
    feeds = {
        "input_ids": np.zeros((1, 1), dtype=np.int64),
        "seqlens_k": np.array([past], dtype=np.int32),
        "total_sequence_length": np.array(past + 1, dtype=np.int32),
        "logits_index": np.zeros((1, 1), dtype=np.int64),
        **{value.name: cache for value in session.get_inputs() if value.name.startswith("past_")},
    }
    seconds = []
    for _ in range(WARM_UP + STEPS):
        start = time.perf_counter()
        session.run(["logits"], feeds)
        seconds.append(time.perf_counter() - start)
    return float(np.percentile(seconds[WARM_UP:], 10)) * 1e6


class _AnyCodes(Quantizer):
    """Codes that stand for no weights, made at once: a kernel's time does not depend on them."""

    def matrix(self, name: str, weights: Floats) -> QuantizedMatrix:
        """A matrix of the shape of `weights`, stored by the recipe's choice for `name`."""
        bits, limit = self.recipe.choice(name)
        rows, columns = weights.shape
        block = block_for(columns, limit)
        blocks = columns // block
        codes = np.random.default_rng(0).integers(0, 256, (rows, blocks, block * bits // 8), dtype=np.uint8)
        zeros = None if bits == 8 else np.full((rows, (blocks + 1) // 2), 0x88, dtype=np.uint8)
        return QuantizedMatrix(bits, codes, np.full((rows, blocks), 0.01, dtype=np.float32), zeros)


def _layers(config: ModelConfig) -> int:
    """As many layers as hold `WEIGHTS` in int4, and at most the model's."""
    hidden, wide = config.hidden_size, config.intermediate_size
    one = hidden * (2 * config.q_size + 2 * config.kv_size + 3 * wide) // 2
    return max(1, min(config.num_layers, -(-WEIGHTS // one)))
