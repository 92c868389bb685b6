"""Golden runs: what training and generation give, recorded, so that a change of structure changes none of it.

    python tests/golden/record.py [-o FILE] [--work FOLDER]      FILE: values.json beside this one

values.json holds, for runs of eight steps on the CPU in fp32 with one thread, the loss (nats a token) and
gradient norm of each step, the bits per byte of each evaluation and a sha256 over the final weights; for the
model in model/ on PyTorch and as an fp32, int8 and int4 export, the argmax and the maximum of its logits, a
sha256 over all of them, and the tokens and texts of greedy, sampled, drafted and continued generations.
`environment` names what decides the last bits: where it is the same, all values must be the same bit for bit
(`test_golden.py`, which also states the tolerances for other machines).

The values are recorded again only when an intended change moves them: another default, another order of the
data, another formula, or a new version of PyTorch or ONNX Runtime in constraints.txt. The commit that does so
adds a file to docs/decisions/ that says what moved, by how much and why. A change of structure never does.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from safetensors.numpy import load_file

import ptbr_slm
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.results import GenerationResult
from ptbr_slm.train.config import TrainConfig
from ptbr_slm.train.config_file import from_values
from ptbr_slm.train.find_lr import find_lr
from ptbr_slm.train.run import train

HERE = Path(__file__).resolve().parent
DATA, MODEL, VALUES = HERE / "data", HERE / "model", HERE / "values.json"

Values = dict[str, Any]

COMMON: Values = {
    "device": "cpu",
    "precision": "fp32",
    "model_size": "nano",
    "model.num_layers": 2,
    "model.intermediate_size": 64,
    "seq_len": 32,
    "batch_size": 2,
    "grad_accum": 2,
    "max_steps": 8,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 0.01,
    "schedule.kind": "cosine",
    "schedule.warmup_steps": 2,
    "evaluation.every": 4,
    "evaluation.sample_tokens": 0,
    "checkpoint.every": 3,
    "seed": 11,
}
"""The shape and the course of every run, but for what each changes."""

RUNS: dict[str, Values] = {
    "adamw": {"evaluation.sample_tokens": 12},
    "muon": {
        "optimizer.name": "muon",
        "optimizer.learning_rate": 0.004,
        "optimizer.momentum_warmup_steps": 0,
    },
    "accumulated": {"grad_accum": 4, "checkpointing": "full", "loss": "chunked", "z_loss": 1e-4},
    "wsd": {"schedule.kind": "wsd", "schedule.warmup_steps": 3, "schedule.cooldown_fraction": 0.5},
    "document mask": {"data.document_mask": True},
    "qk_norm": {"model.qk_norm": True, "model.tie_embeddings": False, "checkpointing": "every:2"},
}
"""In this process. Two ranks, a resumed run and one from other weights are played by functions below."""

STORY = (
    "O barco saiu cedo do cais, antes que o sol aparecesse atrás do morro.\n"
    "Na proa ia o velho Anselmo, que conhecia cada pedra daquela baía.\n"
    "A neta dele, Luísa, segurava o balde e contava as gaivotas em voz alta.\n"
)
"""How the text of data/ begins, which model/ knows by heart."""
PROMPTS = ["O barco saiu cedo", "Luísa perguntou por que", "Dona Cida, a mais antiga", "Um grão de areia"]
READ = "Na proa ia o velho Anselmo, e a chuva caía na cidade sem que ninguém soubesse o que dizer."
PRECISIONS = ("fp32", "int8", "int4")


def environment() -> Values:
    """What decides the last bits of a sum here: versions, and the CPU as the kernels see it."""
    packages = ("torch", "onnxruntime", "numpy", "tokenizers")
    processor = {"vendor_id": "", "cpu family": "", "model": "", "model name": "", "flags": ""}
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            if key.strip() in processor:
                processor[key.strip()] = value.strip()
    flags = re.findall(r"\b(?:fma|avx\w*|amx\w*)\b", processor.pop("flags"))
    return {
        **{name: importlib.metadata.version(name) for name in packages},
        "system": f"{platform.system()} {platform.machine()}",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "processor": processor,
        "flags": sorted(set(flags)),
    }


def floats(numbers: Iterable[float]) -> Values:
    """Exact, and to be read."""
    numbers = [float(number) for number in numbers]
    return {"hex": [n.hex() for n in numbers], "decimal": [float(f"{n:.7g}") for n in numbers]}


# Training


def settings(output: Path, changes: Mapping[str, Any]) -> TrainConfig:
    return from_values({"data": DATA, "output": output, **COMMON, **changes})


def course(run: Path) -> Values:
    """What a finished run leaves: metrics.jsonl and the weights of final/."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [record for record in records if record["event"] == "step"]
    evaluations = [record for record in records if record["event"] == "eval"]
    weights = load_file(run / "final" / "model.safetensors")
    digest, squares = hashlib.sha256(), 0.0
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].tobytes())
        squares += float((weights[name].astype(np.float64) ** 2).sum())
    values = {
        "steps": [record["step"] for record in steps],
        "losses": floats(record["loss"] for record in steps),
        "grad_norms": floats(record["grad_norm"] for record in steps),
        "learning_rates": floats(record["learning_rate"] for record in steps),
        "evaluated": [record["step"] for record in evaluations],
        "bits_per_byte": floats(record["bits_per_byte"] for record in evaluations),
        "weights_norm": floats([math.sqrt(squares)]),
        "weights_sha256": digest.hexdigest(),
    }
    samples = [record["text"] for record in records if record["event"] == "sample"]
    return {**values, "samples": samples} if samples else values


def start_two_ranks(output: Path) -> list[subprocess.Popen[str]]:
    """`ptbr-slm train` as two processes that torchrun could have started."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    changes = {**COMMON, "data": str(DATA), "output": str(output), "parallel": "ddp"}
    command = [sys.executable, "-m", "ptbr_slm", "train", "--quiet"]
    command += [part for key, value in changes.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    return [
        subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (0, 1)
    ]


def play_training(work: Path) -> Values:
    """Every run by its name."""
    ranks = start_two_ranks(work / "two_ranks")
    found: Values = {}
    for name, changes in RUNS.items():
        train(settings(work / name, changes))
        found[name] = course(work / name)
    checkpoint = work / "adamw" / "checkpoints" / "step-00000003"
    train(settings(work / "resumed", {**RUNS["adamw"], "resume": str(checkpoint)}))
    found["resumed"] = course(work / "resumed")
    derived = ("model_size", "model.num_layers", "model.intermediate_size", "schedule.warmup_steps")
    begun = {"init_from": str(MODEL), "optimizer.learning_rate": 0.0017, **dict.fromkeys(derived)}
    train(settings(work / "init_from", begun))
    found["init_from"] = course(work / "init_from")
    told = [rank.communicate(timeout=120)[1] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        raise RuntimeError("\n".join(told))
    found["two_ranks"] = course(work / "two_ranks")
    return found


def play_find_lr(work: Path) -> Values:
    """The curve of a range test."""
    found = find_lr(settings(work / "find_lr", {}), steps=16, lowest=1e-4, highest=0.3)
    return {
        "rates": floats(point.rate for point in found.points),
        "losses": floats(point.loss for point in found.points),
        "smoothed": floats(point.smoothed for point in found.points),
        "suggestion": found.suggestion,
        "diverged": found.diverged,
    }


# Generation

GREEDY: Values = {"max_new_tokens": 40, "temperature": 0.0}
SAMPLED: Values = {"max_new_tokens": 40, "temperature": 2.0, "top_k": 40, "top_p": 0.95, "min_p": 0.005,
                   "repetition_penalty": 1.1, "presence_penalty": 0.5, "seed": 7, "n": 2}  # fmt: skip
TEXTS: dict[str, tuple[list[str], Values]] = {
    "greedy": (PROMPTS, GREEDY),
    "sampled": (PROMPTS, SAMPLED),
    "drafted": ([STORY + STORY[:40]], {**GREEDY, "lookahead": 4}),
    "continued": ([STORY + "Depois"], GREEDY),
}
"""The prompts of one batch and their options. `continued` comes after `STORY[:70]`, which the model goes on
with as the story does: the cache then holds most of its prompt, tokens that were generated among them."""


def play_generation(folder: Path) -> Values:
    """Logits and texts of one model or export."""
    model: Model = ptbr_slm.load(folder, device="cpu")
    logits = model.logits(model.engine.tokenizer.encode(READ))  # (T, V)
    found: Values = {
        "argmax": logits.argmax(axis=1).tolist(),
        "maximum": floats(logits.max(axis=1)),
        "logits_sha256": hashlib.sha256(np.ascontiguousarray(logits).tobytes()).hexdigest(),
    }
    for name, (prompts, options) in TEXTS.items():
        model.forget()
        if name == "continued":
            model.generate(STORY[:70], **GREEDY)
        found[name] = [text(result) for result in model.generate_detailed(prompts, **options)]
    model.forget()
    scored = model.generate_detailed(PROMPTS[1], max_new_tokens=8, temperature=0.0, logprobs=2)
    found["logprobs"] = floats(entry.logprob for entry in scored.logprobs or ())
    model.close()
    return found


def text(result: GenerationResult) -> Values:
    return {
        "tokens": list(result.tokens),
        "text": result.text,
        "finish_reason": result.finish_reason,
        "reused_tokens": result.reused_tokens,
    }


def play_exports(work: Path) -> Values:
    """PyTorch and every precision, by name; int4 with the int8 head that it had when it was recorded."""
    from ptbr_slm_export import export_model
    from ptbr_slm_export.quantization.recipe import recipe_for

    found = {"torch": play_generation(MODEL)}
    for precision in PRECISIONS:
        recipe = recipe_for("int4", head="int8") if precision == "int4" else None
        export_model(MODEL, work / precision, precision=precision, recipe=recipe, verify=False)
        found[precision] = play_generation(work / precision)
    return found


def play(work: Path) -> Values:
    """All values of this machine. work: an empty folder, which keeps the runs and the exports."""
    torch.set_num_threads(int(os.environ.get("GOLDEN_THREADS", "1")))
    training = play_training(work)
    curve = play_find_lr(work)
    if hasattr(os, "sched_setaffinity"):  # ONNX Runtime then takes one thread as well
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    return {
        "environment": environment(),
        "training": training,
        "find_lr": curve,
        "generation": play_exports(work),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=VALUES)
    parser.add_argument("--work", type=Path, help="a new folder for the runs and exports, which stay there")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        values = play(chosen.work or Path(folder))
    # One line a list: what moved can be read in a diff.
    body = re.sub(r"\[[^][{}]*\]", lambda m: " ".join(m[0].split()), json.dumps(values, indent=1,
                  ensure_ascii=False))  # fmt: skip
    chosen.output.write_text(body + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
