"""Trainings on a simulated T4, each beside the same one on the CPU; played by `python -m simulated_cuda`.

fp32 on the card must give the CPU's numbers (1e-5): the operators are the same ones. In fp16 only the losses
can be compared.
"""

from __future__ import annotations

import gc
import json
import os
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from listeners import Recorder
from poisoned_windows import poisoned
from safetensors.numpy import load_file
from simulated_cuda import Card
from simulated_cuda.device import CONTEXT_BYTES
from tiny_runs import SETTINGS, losses, write_texts

from ptbr_slm import faults
from ptbr_slm.bench.train import Case
from ptbr_slm.bench.train_measure import measure
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.events import Event
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.batches import MicroBatch
from ptbr_slm.train.compile import compile_layers
from ptbr_slm.train.config_file import from_values
from ptbr_slm.train.events import Step
from ptbr_slm.train.find_lr import find_lr
from ptbr_slm.train.parallel.parallelize import Parallel
from ptbr_slm.train.planning.memory import estimate
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.train.reporting.metrics import read_metrics
from ptbr_slm.train.run import train

TINY = {**SETTINGS, "model.num_layers": 3, "max_steps": 4, "evaluation.every": 2, "checkpoint.every": 2}
WORDS = ["o rio corre devagar entre as pedras e a manhã começa com cheiro de café na janela da rua"]


@lru_cache
def texts(folder: Path) -> Path:
    """A prepared corpus of invented sentences."""
    source = write_texts(folder / "textos", WORDS)
    tokenizer = Tokenizer.train([" ".join(WORDS)] * 4, 300)
    prepare([source], folder / "dados", tokenizer, valid_fraction=0.2)
    return folder / "dados"


def run(folder: Path, name: str, **values: Any) -> tuple[Path, Recorder]:
    """Train into folder/name; dotted keys with __ for dots."""
    dotted = {key.replace("__", "."): value for key, value in values.items()}
    recorder = Recorder()
    config = from_values({"data": texts(folder.parent), "output": folder / name, **TINY, **dotted})
    train(config, recorder)
    return config.output, recorder


def distance(one: Path, other: Path) -> float:
    """The largest difference between the weights of two finished runs."""
    ours, theirs = (load_file(output / "final" / "model.safetensors") for output in (one, other))
    return max(float(np.abs(ours[name] - theirs[name]).max()) for name in theirs)


def waits(card: Card) -> dict[str, int]:
    """file.py:function -> how often the host waited there."""
    return dict(Counter(wait.where for wait in card.waits))


def beside_the_cpu(folder: Path, cards: list[Card], **values: Any) -> Any:
    """The same run on both, in fp32."""
    theirs, _ = run(folder, "cpu", device="cpu", **values)
    ours, _ = run(folder, "card", device="cuda", precision="fp32", **values)
    return {
        "losses": [losses(ours), losses(theirs)],
        "distance": distance(ours, theirs),
        "waits": waits(cards[0]),
        "bits": [
            [r["bits_per_byte"] for r in read_metrics(o / "metrics.jsonl") if r["event"] == "eval"]
            for o in (ours, theirs)
        ],
    }


def same(**values: Any) -> Any:
    return lambda folder, cards: beside_the_cpu(folder, cards, **values)


def half(folder: Path, cards: list[Card]) -> Any:
    """What a T4 does by itself: fp16 with GradScaler."""
    theirs, _ = run(folder, "cpu", device="cpu")
    ours, recorder = run(folder, "card")
    found = waits(cards[0])
    plan = recorder.named("start")[0]
    scales = [r["scale"] for r in read_metrics(ours / "metrics.jsonl") if r["event"] == "step"]
    bf16 = [str(key) for key in cards[0].operators if "bfloat16" in key[1]]
    state = json.loads((ours / "checkpoints" / "step-00000002" / "training" / "state.json").read_bytes())
    return {
        "losses": [losses(ours), losses(theirs)],
        "precision": plan["precision"],
        "device": plan["device"],
        "scales": scales,
        "saved scale": state["scaler"]["scale"],
        "waits": found,
        "bf16": bf16,
        "types of products": sorted(
            {types for (name, types), _ in cards[0].operators.items() if name.startswith("aten.mm.")}
        ),
        "attention": sorted({name for name, _ in cards[0].operators if "attention" in name}),
    }


def resumed(folder: Path, cards: list[Card]) -> Any:
    """A run that dies at a checkpoint, and the same command again."""
    whole, _ = run(folder, "whole", max_steps=6)
    os.environ[faults.VARIABLE] = "error@checkpoint.after_weights:2"
    faults.reset()
    try:
        run(folder, "died", max_steps=6)
    except RuntimeError as error:
        died = str(error)
    finally:
        del os.environ[faults.VARIABLE]
        faults.reset()
    output, recorder = run(folder, "died", max_steps=6)
    return {
        "died": died,
        "resumed at": recorder.named("resume")[0]["step"],
        "distance": distance(whole, output),
        "losses": [losses(whole), losses(output)],
    }


def init_from(folder: Path, cards: list[Card]) -> Any:
    """Weights of a folder, not drawn ones."""
    first, _ = run(folder, "first")
    settings = {key: value for key, value in TINY.items() if not key.startswith("model")}
    config = from_values({"data": texts(folder.parent), "output": folder / "second", **settings,
                          "init_from": first / "final"})  # fmt: skip
    train(config, Recorder())
    return {"losses": [losses(first), losses(config.output)]}


def find_rate(folder: Path, cards: list[Card]) -> Any:
    """find-lr, on the card in fp16."""
    config = from_values({"data": texts(folder.parent), "output": folder / "run", **TINY})
    test = find_lr(config, steps=6, lowest=1e-4, highest=1e-1)
    return {"losses": [point.loss for point in test.points], "waits": waits(cards[0])}


def bench(folder: Path, cards: list[Card]) -> Any:
    """`bench train` of a nano on the card: real figures of a simulated machine, and the planner's memory."""
    case = Case(size="nano", label="plano", device="cuda", seq_len=64, seconds=0.1, batch_size=2)
    result = measure(case, folder).to_json()
    keys = ("status", "reason", "precision", "first_loss", "peak_bytes", "predicted_bytes", "skipped_steps")
    return {key: result[key] for key in keys}


def out_of_memory(folder: Path, cards: list[Card]) -> Any:
    """The card is full in the middle of a step; the planner was given more than there is."""
    values = {"batch_size": 8, "grad_accum": 1, "seq_len": 64, "max_steps": 3, "precision": "fp32",
              "checkpointing": "none", "loss": "chunked", "schedule.warmup_steps": 1}  # fmt: skip
    gc.collect()
    cards[0].peak = before = cards[0].allocated
    undisturbed, _ = run(folder, "undisturbed", **values)
    enough = before + int(0.8 * (cards[0].peak - before))

    class Full(Recorder):
        """Takes memory away once the run has begun."""

        def event(self, event: Event) -> None:
            super().event(event)
            if isinstance(event, Step) and event.step == 1:
                cards[0].taken_bytes = cards[0].total_bytes - CONTEXT_BYTES - enough

    recorder = Full()
    gc.collect()
    config = from_values({"data": texts(folder.parent), "output": folder / "full", **TINY, **values})
    train(config, recorder)
    return {
        "events": [(e["step"], e["before"], e["after"]) for e in recorder.named("out_of_memory")],
        "said": recorder.named("out_of_memory")[0]["said"] if recorder.named("out_of_memory") else "",
        "losses": [losses(undisturbed), losses(config.output)],
    }


def spike(folder: Path, cards: list[Card]) -> Any:
    """A spike goes back to a checkpoint: weights, moments and scaler return to the card."""
    with poisoned(4 * 14, 4 * 17):
        output, recorder = run(
            folder, "run", max_steps=24, checkpoint__every=4, guard__spike_after=8, guard__spike_steps=3,
            evaluation__every=0, precision="fp32",
        )  # fmt: skip
    return {"rollbacks": [e["step"] for e in recorder.named("rollback")], "losses": losses(output)}


def compiled(folder: Path, cards: list[Card]) -> Any:
    """compile's comparison in fp16 on the card, with a compiler that changes nothing."""
    from ptbr_slm.config import model_config
    from ptbr_slm.model import Llama

    model = Llama(model_config("nano", vocab_size=96, max_seq_len=32)).initialize(0).to("cuda").train()
    tokens = torch.randint(0, 96, (2, 17), generator=torch.Generator().manual_seed(0))
    recorder = Recorder()
    kept = compile_layers(
        Parallel(model), MicroBatch.of_windows(tokens.numpy()), Precision("fp16", ""), recorder,
        scale=65536.0, compiler=lambda plain, **_: plain,
    )  # fmt: skip
    return {"kept": kept, "events": recorder.events}


def torch_engine(folder: Path, cards: list[Card]) -> Any:
    """The PyTorch engine generates on the card what it generates on the CPU."""
    from ptbr_slm.runtime.engines.torch import TorchEngine

    output, _ = run(folder, "run", device="cpu", seq_len=64)
    found = []
    for device in ("cuda", "cpu"):
        engine = TorchEngine(ModelFolder(output / "final"), device)
        ids = engine.tokenizer.encode(" ".join(WORDS))[:40]
        engine.reset(2, 64)
        parts = [engine.logits(ids), engine.prefill(0, ids[:20])[None], engine.prefill(1, ids[:9])[None]]
        parts += [engine.decode([1, 0], ids[20:22]), engine.extend(1, ids[22:30])]
        found.append(np.concatenate(parts))
        engine.close()
    return {"distance": float(np.abs(found[0] - found[1]).max()), "shape": list(found[0].shape)}


PLANNED = [
    {"batch_size": 8, "seq_len": 64, "checkpointing": "none", "loss": "chunked"},
    {"batch_size": 8, "seq_len": 64, "checkpointing": "full", "loss": "chunked"},
    {"batch_size": 8, "seq_len": 64, "checkpointing": "none", "loss": "plain"},
    {"batch_size": 8, "seq_len": 64, "checkpointing": "every:2", "loss": "plain"},
    {"batch_size": 8, "seq_len": 64, "checkpointing": "full", "loss": "chunked", "optimizer.name": "muon"},
]


def planned(folder: Path, cards: list[Card]) -> Any:
    """The planner's peak beside the bytes of the simulated card, in fp16, gradients and moments included."""
    found = []
    for index, values in enumerate(PLANNED):
        for card in cards:  # what the start-up benchmark took does not count
            card.peak = card.largest = card.allocated
        before = cards[0].allocated
        recorder = Recorder()
        config = from_values(
            {"data": texts(folder.parent), "output": folder / str(index), **TINY, "evaluation.every": 0,
             "model.num_layers": 6, "grad_accum": 2, "max_steps": 3,
             "schedule.warmup_steps": 1, "model.intermediate_size": 192, "model.hidden_size": 128,
             "model.num_heads": 4, "model.num_kv_heads": 2, "model.head_dim": 32, **values}
        )  # fmt: skip
        train(config, _PeakOfSteps(recorder, cards[0]))
        start = recorder.named("start")[0]
        model = config.new_model(300, 0, 1, 2)
        wanted = estimate(
            model, batch_size=8, seq_len=64, checkpoint_every=start["checkpoint_every"], precision="fp16",
            optimizer=config.optimizer.name, loss=start["loss"],
        )  # fmt: skip
        found.append({"planned": wanted.total - wanted.context, "measured": cards[0].peak - before,
                     "asked": str(values), "peak": wanted.peak})  # fmt: skip
    return found


class _PeakOfSteps:
    """Forgets the peak of everything before the second step."""

    def __init__(self, listener: Recorder, card: Card) -> None:
        self._listener, self._card = listener, card

    def event(self, event: Event) -> None:
        self._listener.event(event)
        if isinstance(event, Step) and event.step == 1:
            self._card.peak = self._card.allocated

    def progress(self, done: float, status: str) -> None:
        """Ignore."""


CASES = {
    "adamw, samples": same(evaluation__sample_tokens=3),
    "muon, all layers recomputed": same(**{"optimizer.name": "muon"}, checkpointing="full", loss="chunked"),
    "plain loss, z-loss, every other layer": same(loss="plain", z_loss=1e-3, checkpointing="every:2"),
    "untied, QK-norm": same(**{"model.tie_embeddings": False, "model.qk_norm": True}),
    "fp16": half,
    "resume": resumed,
    "init from": init_from,
    "find-lr": find_rate,
    "bench train": bench,
    "out of memory": out_of_memory,
    "spike": spike,
    "compile": compiled,
    "torch engine": torch_engine,
    "planner": planned,
}
