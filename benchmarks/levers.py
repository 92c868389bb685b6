"""What each choice of the CPU graph and session is worth: one change at a time against what is kept.

    python benchmarks/levers.py --size 85m            # the table on the terminal
    python benchmarks/levers.py --size 85m --write    # and into docs/benchmarks.md

Speed only, on random weights; what a choice costs in quality is in benchmarks/quantization.py. Every variant
is open at once and they take turns, a few decode steps each, so that a disturbance meets all of them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from arguments import speed_parser
from machine import facts
from ptbr_slm_export.graphs.gqa import LlamaGraph
from ptbr_slm_export.graphs.projections import QuantizedProjections
from ptbr_slm_export.graphs.writer import MICROSOFT
from ptbr_slm_export.llama import LlamaWeights
from ptbr_slm_export.quantization.quantizer import Quantizer
from ptbr_slm_export.quantization.recipe import HEADS, RECIPES, Recipe, recipe_for
from results import command, table, write_section

from ptbr_slm.bench.synthetic import write_random_model
from ptbr_slm.config import ModelConfig, model_config
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.storage.weights import WeightReader

FLOAT, INT8 = ir.DataType.FLOAT, ir.DataType.INT8
SPINNING = 0.15
"""Seconds after which idle threads of ONNX Runtime sleep, with room."""


class PackedFeedForward(LlamaGraph):
    """Gate and up as one product, split afterwards: a node and a round of threads less, a copy more."""

    def _feed_forward(self, layer: int, x: ir.Value) -> ir.Value:
        writer, config, prefix = self.writer, self.config, f"layers.{layer}."
        hidden, wide, dense = config.hidden_size, config.intermediate_size, self.projections.dense

        def both() -> Any:
            return np.concatenate([self.weights.gate(layer), self.weights.up(layer)])

        joined = dense(writer, x, prefix + "gate_up", 2 * wide, hidden, both)
        widths = writer.constant(prefix + "gate_up.widths", np.array([wide, wide], dtype=np.int64))
        gate, up = writer.nodes_outputs(
            "Split", [joined, widths], [prefix + "gate", prefix + "up"], attributes={"axis": -1}
        )
        gated = writer.node("QuickGelu", [gate], prefix + "silu", domain=MICROSOFT, attributes={"alpha": 1.0})
        product = writer.node("Mul", [gated, up], prefix + "gated")
        return dense(writer, product, prefix + "down", hidden, wide, lambda: self.weights.down(layer))


class Int8Cache(LlamaGraph):
    """Keys and values in int8 with a scale a channel: a quarter of the cache's bytes."""

    def _attention(self, layer: int, x: ir.Value) -> ir.Value:
        writer, config, prefix = self.writer, self.config, f"layers.{layer}."
        width = config.q_size + 2 * config.kv_size
        qkv = self.projections.dense(
            writer, x, prefix + "qkv", width, config.hidden_size, lambda: self.weights.qkv(layer)
        )
        shape = ("batch", config.num_kv_heads, "capacity", config.head_dim)
        past = [writer.input(f"past_key_values.{layer}.{part}", INT8, shape) for part in ("key", "value")]
        scale = np.full((1, config.num_kv_heads, 1, config.head_dim), 0.05, dtype=np.float32)
        scales = [writer.constant(f"{prefix}{part}.scale", scale) for part in ("key", "value")]
        mixed, *present = writer.nodes_outputs(
            "GroupQueryAttention",
            [qkv, None, None, *past, self.seqlens_k, self.total_length, self.cos, self.sin, None, None, None,
             *scales],
            [prefix + "attention", f"present.{layer}.key", f"present.{layer}.value"],
            domain=MICROSOFT,
            attributes={
                "num_heads": config.num_heads, "kv_num_heads": config.num_kv_heads, "do_rotary": 1,
                "k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8,
            },
        )  # fmt: skip
        for value in present:
            assert value.name is not None
            writer.output(value, value.name, INT8, shape)
        return mixed


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to build and run the same model."""

    name: str
    recipe: Recipe
    graph: type[LlamaGraph] = LlamaGraph
    threads: int = 2
    entries: Mapping[str, str] = field(default_factory=dict)
    """Configuration entries of the session."""
    cache: type[np.generic] = np.float32
    capacity: int = 512
    """Tokens the caches can hold."""
    all_logits: bool = False
    """Whether a prefill asks for the logits of every position."""


def variants(threads: int) -> Iterator[Variant]:
    """What is kept, first, and every lever against it."""
    kept = RECIPES["int4"]
    base = Variant(name=f"kept: blocks of {kept.block}, {_head(kept)}", recipe=kept, threads=threads)
    yield base
    for block in (32, 64, 128, 256):
        if block != kept.block:
            yield replace(base, name=f"blocks of {block}", recipe=replace(kept, block=block))
    for head in HEADS:
        recipe = recipe_for("int4", head=head)
        assert recipe is not None
        if recipe != kept:
            yield replace(base, name=_head(recipe), recipe=recipe)
    for best in (128, 256):
        recipe = replace(kept, head_rescored=best)
        yield replace(base, name=_head(recipe), recipe=recipe)
    yield replace(base, name="int8 everywhere", recipe=RECIPES["int8"])
    yield replace(base, name="gate and up packed", graph=PackedFeedForward)
    yield replace(base, name="int8 cache", graph=Int8Cache, cache=np.int8)
    yield replace(base, name="cache of 2,048 tokens, not 512", capacity=2048)
    yield replace(base, name="logits at every position", all_logits=True)
    yield replace(base, name="idle threads sleep", entries={"session.intra_op.allow_spinning": "0"})
    yield replace(base, name="work shared out in 4 parts", entries={"session.dynamic_block_base": "4"})
    if threads > 1:
        yield replace(base, name="one thread", threads=1)


def _head(recipe: Recipe) -> str:
    again = f", best {recipe.head_rescored} scored again" if recipe.head_rescored else ""
    return f"int{recipe.head_bits} head in blocks of {recipe.head_block}{again}"


class Contestant:
    """A variant ready to run: prefill of a prompt, then single tokens after it."""

    def __init__(
        self,
        variant: Variant,
        graph: Path,
        config: ModelConfig,
        prompt: np.ndarray[Any, Any],
        profile: Path | None = None,
    ) -> None:
        """profile: where ONNX Runtime's profiler is to write, if at all."""
        options = ort.SessionOptions()
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        options.intra_op_num_threads, options.inter_op_num_threads = variant.threads, 1
        options.log_severity_level = 3
        for key, value in variant.entries.items():
            options.add_session_config_entry(key, value)
        self.session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        shape = (1, config.num_kv_heads, variant.capacity, config.head_dim)
        self.caches = [np.zeros(shape, dtype=variant.cache) for _ in range(2 * config.num_layers)]
        self.prompt = prompt
        wanted = np.arange(len(prompt)) if variant.all_logits else np.array([len(prompt) - 1])
        self.long = self._binding(prompt[None], wanted[None], 0, config.vocab_size)
        self.step = self._binding(
            prompt[None, :1], np.zeros((1, 1), np.int64), len(prompt), config.vocab_size
        )

    def _binding(self, ids: Any, wanted: Any, past: int, vocab_size: int) -> Any:
        binding = self.session.io_binding()
        total = past + ids.shape[1]
        arrays = {
            "input_ids": ids.astype(np.int64),
            "seqlens_k": np.array([total - 1], dtype=np.int32),
            "total_sequence_length": np.array(total, dtype=np.int32),
            "logits_index": wanted.astype(np.int64),
        }
        logits = np.empty((1, wanted.shape[1], vocab_size), dtype=np.float32)
        for name, array in arrays.items():
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        for index, cache in enumerate(self.caches):
            name = f"{index // 2}.{'value' if index % 2 else 'key'}"
            memory = ("cpu", 0, cache.dtype.type, cache.shape, cache.ctypes.data)
            binding.bind_input(f"past_key_values.{name}", *memory)
            binding.bind_output(f"present.{name}", *memory)
        binding.kept = (arrays, logits)  # ORT holds addresses, not arrays
        return binding

    def time(self, binding: Any) -> float:
        """Seconds of one run."""
        start = time.perf_counter()
        self.session.run_with_iobinding(binding)
        return time.perf_counter() - start


def measure(
    contestants: list[Contestant], rounds: int, steps: int
) -> tuple[list[list[float]], list[list[float]]]:
    """(prefill seconds, decode seconds) of each, taking turns.

    Not counted are the wait until the threads of the one before have stopped spinning, which otherwise fell
    into the next one's prefill (30 of 80 ms, and not behind a variant whose threads sleep), a step that wakes
    its own threads, and two steps after the prefill.
    """
    prefill: list[list[float]] = [[] for _ in contestants]
    decode: list[list[float]] = [[] for _ in contestants]
    for turn in range(rounds):
        for index in np.roll(np.arange(len(contestants)), -turn):
            one = contestants[index]
            time.sleep(SPINNING)
            one.time(one.step)
            prefill[index].append(one.time(one.long))
            seconds = [one.time(one.step) for _ in range(steps + 2)]
            decode[index].extend(seconds[2:])
    return prefill, decode


def build(variant: Variant, model: Path, out: Path) -> Path:
    """Write the variant's graph into `out`."""
    config = ModelFolder(model).config
    weights = LlamaWeights(config, WeightReader(model).read)
    projections = QuantizedProjections(weights, Quantizer(variant.recipe))
    out.mkdir(parents=True)
    graph = variant.graph(config, weights, projections, FLOAT).build()
    ir.save(graph, out / "model.onnx", external_data="model.onnx.data", size_threshold_bytes=1024)
    return out / "model.onnx"


def main() -> None:
    arguments = _arguments()
    chosen = list(variants(arguments.threads))
    about = facts(("onnxruntime", "numpy"), arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        config = model_config(arguments.size)
        write_random_model(model, config)
        prompt = np.random.default_rng(0).integers(5, config.vocab_size, arguments.prompt_tokens)
        graphs: dict[object, Path] = {}
        contestants = []
        for index, variant in enumerate(chosen):
            key = (variant.recipe, variant.graph)
            if key not in graphs:
                sys.stderr.write(f"building {variant.name}\n")
                graphs[key] = build(variant, model, Path(folder) / str(index))
            contestants.append(Contestant(variant, graphs[key], config, prompt))
        prefill, decode = measure(contestants, arguments.rounds, arguments.steps)
    text = "\n\n".join(
        [
            f"`{command()}`",
            about,
            f"{arguments.size}, after a prompt of {arguments.prompt_tokens}: {arguments.rounds} turns of "
            f"one prefill and {arguments.steps} decode steps.",
            _table(chosen, prefill, decode),
        ]
    )
    sys.stdout.write(text + "\n")
    if arguments.write:
        write_section(f"levers-{arguments.size}", text)


def _table(chosen: list[Variant], prefill: list[list[float]], decode: list[list[float]]) -> str:
    rows = []
    for variant, long, steps in zip(chosen, prefill, decode, strict=True):
        row = [variant.name]
        for seconds, base, digits in ((steps, decode[0], 2), (long, prefill[0], 1)):
            middle = statistics.median(seconds)
            row += [
                f"{middle * 1e3:.{digits}f}",
                f"{float(np.percentile(seconds, 10)) * 1e3:.{digits}f}",
                f"{middle / statistics.median(base):.2f}x",
            ]
        rows.append(row)
    header = [
        "one change",
        "decode, ms a token",
        "tenth percentile",
        "time",
        "prefill, ms",
        "tenth percentile",
        "time",
    ]
    return table(header, rows)


def _arguments() -> argparse.Namespace:
    parser = speed_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--prompt-tokens", type=int, default=256)
    return parser.parse_args()


if __name__ == "__main__":
    main()
