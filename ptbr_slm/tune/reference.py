"""What pairs of answers are worth to a model: summed log-probabilities, and those of the reference, stored.

The reference of a preference tuning is the model as it was before. Its log-probabilities do not change, so
they are computed once, and the model is not held beside the trained one. They lie beside the prepared pairs,
in a file whose name says of which model, pairs and number format they are; another is computed anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open

from ptbr_slm.data.index import SPLITS, SplitName
from ptbr_slm.model import Llama
from ptbr_slm.storage.atomic import atomic_file
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.storage.weights import write_safetensors
from ptbr_slm.train.config import TrainConfig
from ptbr_slm.train.evaluate import pieces
from ptbr_slm.train.parallel.environment import local_world
from ptbr_slm.train.parallel.parallelize import Parallel
from ptbr_slm.train.parallel.world import SINGLE_PROCESS, Ranks
from ptbr_slm.train.planning.devices import choose_device
from ptbr_slm.train.planning.precision import Precision, choose_precision
from ptbr_slm.train.step import autocast
from ptbr_slm.tune.preference import DPO, Floats, MeasuredPairs, PairBatches
from ptbr_slm.tune.prepared import PreparedPreferences

_TOKENS_AT_ONCE = 8192
"""Positions of a batch, padding included."""


def stored_reference(
    prepared: PreparedPreferences,
    model: ModelFolder,
    folder: Path,
    config: TrainConfig,
    progress: Callable[[float], None] = lambda done: None,
) -> dict[SplitName, Floats]:
    """Split -> (pairs, 2) log-probabilities of the answers to `model`, chosen first.

    folder: where they are kept. config: device and number format are those of the training, so that its
    first margins are 0 but for rounding. progress: called with the share that is done. Raises E_DISK_FULL,
    E_PERMISSION, E_IO and what opening the model raises.
    """
    device, capability, _ = choose_device(config.device, local_world())
    precision = choose_precision(device.type, capability, config.precision)
    identity = hashlib.sha256(f"{model.sha256} {prepared.sha256} {precision.name}".encode()).hexdigest()
    file = folder / f"reference-{identity[:16]}.safetensors"
    shapes = {name: (prepared.split(name).pairs, 2) for name in SPLITS}
    found = _read(file, shapes)
    if found is None:
        network = Llama.from_folder(model.path).to(device)
        found = _computed(prepared, Parallel(network), config, precision, progress)
        with atomic_file(file) as new:
            write_safetensors(new, dict(found.items()), {"sha256": _digest(found)})
    return found


def _computed(
    prepared: PreparedPreferences,
    parallel: Parallel,
    config: TrainConfig,
    precision: Precision,
    progress: Callable[[float], None],
) -> dict[SplitName, Floats]:
    """All splits."""
    found: dict[SplitName, Floats] = {}
    batch_size = max(1, _TOKENS_AT_ONCE // config.seq_len)
    total, done = sum(prepared.split(name).pairs for name in SPLITS), 0
    for name in SPLITS:
        split = prepared.split(name)
        found[name] = values = np.zeros((split.pairs, 2))
        if not split.pairs:
            continue
        source = PairBatches(split, values, DPO(), seq_len=config.seq_len, seed=config.seed, pad_id=0)
        for start in range(0, source.rows, batch_size):
            rows = range(start, min(start + batch_size, source.rows))
            numbers, measured = measure_rows(parallel, source, rows, batch_size, precision)
            values[numbers] = measured
            done += len(numbers)
            progress(done / total)
    return found


@torch.no_grad()
def measure_rows(
    parallel: Parallel,
    source: PairBatches,
    rows: Sequence[int],
    batch_size: int,
    precision: Precision,
    ranks: Ranks = SINGLE_PROCESS,
) -> tuple[npt.NDArray[np.int64], Floats]:
    """(numbers of the pairs in these rows, their log-probabilities (pairs, 2), chosen first).

    Each rank reads its share of the rows; all ranks call it and get the same.
    """
    model = parallel.model
    device, was_training = model.embed.weight.device, model.training
    model.eval()
    batch = source.batch(rows)
    held = torch.zeros(batch.reference.shape, device=device)  # (B, P, 2)
    mine = ranks.share(len(rows))
    most = -(-len(rows) // ranks.world) if parallel.lockstep else 0
    for part, counts in pieces(mine, batch_size, most):
        there = batch[part].to(device)
        pairs = MeasuredPairs(
            there.tokens, there.targets, there.document_ids, reference=there.reference, objective=DPO()
        )
        with autocast(device, precision):
            found = parallel.loss_sum(pairs)
        if counts:
            held[part] = found
    model.train(was_training)
    values = ranks.sum_(held).double().cpu().numpy()
    members = [source.pairs(row) for row in rows]
    measured = [values[at, : len(numbers)] for at, numbers in enumerate(members)]
    return np.concatenate(members), np.concatenate(measured)


def _read(file: Path, shapes: Mapping[SplitName, tuple[int, int]]) -> dict[SplitName, Floats] | None:
    """What the file holds; None where it is not there, or is not what was written."""
    try:
        with safe_open(file, "numpy") as opened:
            values: dict[SplitName, Floats] = {name: opened.get_tensor(name) for name in SPLITS}
            digest = (opened.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    same = {name: value.shape for name, value in values.items()} == dict(shapes)
    return values if same and digest == _digest(values) else None


def _digest(values: Mapping[SplitName, Floats]) -> str:
    digest = hashlib.sha256()
    for name in SPLITS:
        digest.update(values[name].tobytes())
    return digest.hexdigest()
