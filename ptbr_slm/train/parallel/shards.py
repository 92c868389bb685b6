"""A model in shards (FSDP2): whole weights into it and out of it, and its optimizer's state on disk.

The state lies as safetensors under `training/shards/` of a checkpoint, one file a rank, in the layout of
torch.distributed.checkpoint's HuggingFaceStorageWriter: the offsets of each part stand in the header. Its
reader puts the parts together for any number of ranks, one without FSDP too. Its writer is not used, since
there the ranks agree by pickled plans. The weights are gathered into the model folder, so that every
checkpoint can be used and exported.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from ptbr_slm.errors import os_errors
from ptbr_slm.model import Llama
from ptbr_slm.storage.weights import Array, whole, write_safetensors
from ptbr_slm.train.parallel.world import Ranks

FOLDER = "training/shards"


def is_sharded(model: nn.Module) -> bool:
    """Whether every rank holds only its part of each parameter."""
    return isinstance(next(model.parameters()), DTensor)


@torch.no_grad()
def fill(model: Llama, load: Callable[[Llama], object]) -> None:
    """Give the model the weights that `load` gives to a whole one; of a sharded model each rank keeps its
    part.

    A sharded model costs the host 4 bytes a parameter meanwhile.
    """
    if not is_sharded(model):
        load(model)
        return
    whole = Llama(model.config)
    load(whole)
    for part, value in zip(model.parameters(), whole.parameters(), strict=True):
        part.copy_(_like(part, value.detach()))


@torch.no_grad()
def gather(model: Llama, ranks: Ranks) -> Llama:
    """The whole model: itself, or for a sharded one a copy on the CPU of the main rank (empty on the others).

    All ranks call it.
    """
    if not is_sharded(model):
        return model
    whole = Llama(model.config) if ranks.main else model
    for part, target in zip(model.parameters(), whole.parameters(), strict=True):
        assert isinstance(part, DTensor)
        value = part.full_tensor()
        if ranks.main:
            target.copy_(value)
    return whole


def save_shards(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer, ranks: Ranks) -> None:
    """Every rank writes its part of the optimizer's state below `checkpoint`.

    Raises E_DISK_FULL, E_PERMISSION or E_IO, on all ranks.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    offsets: dict[str, dict[str, list[int]]] = {}
    for name, value in _state(model, optimizer).items():
        part, offset = value, [0] * value.dim()
        if isinstance(value, DTensor):
            _, begin = compute_local_shape_and_global_offset(value.shape, value.device_mesh, value.placements)
            part, offset = value.to_local(), list(begin)
        elif not ranks.main:  # the same on every rank
            continue
        if part.numel():
            arrays[name], offsets[name] = part.detach().cpu().numpy(), {"saved_offsets": offset}
    metadata = {"DCP_SHARDING_INFO": json.dumps(offsets), "DCP_VERSION": "1.0", "format": "pt"}
    file = checkpoint / FOLDER / f"shard-{ranks.rank + 1:05d}-model-00001-of-00001.safetensors"

    def write() -> None:
        with os_errors(checkpoint):
            file.parent.mkdir(exist_ok=True)
        write_safetensors(file, arrays, metadata)

    ranks.all_or_none(write)


def load_shards(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put back the state that any number of ranks saved into a model on any number of ranks.

    Raises ValueError where it is another model's or another optimizer's.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = HuggingFaceStorageReader(str(checkpoint / FOLDER))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # no_dist: every rank reads by itself
        try:
            load(_state(model, optimizer), storage_reader=reader, no_dist=True)
        except (CheckpointException, RuntimeError) as error:
            raise ValueError(f"shards: {error}") from error


@torch.no_grad()
def load_into_shards(model: nn.Module, optimizer: torch.optim.Optimizer, arrays: Mapping[str, Array]) -> None:
    """Each rank's part of whole arrays, as `optim.optimizer_arrays` gave them. Raises KeyError or
    ValueError.
    """
    for name, value in _state(model, optimizer).items() if arrays else ():
        array = torch.from_numpy(whole(arrays[name]).copy())
        if array.shape != value.shape:
            raise ValueError(f"{name}: {tuple(array.shape)} != {tuple(value.shape)}")
        value.copy_(_like(value, array))


def _state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """KEY.PARAMETER -> tensor of the optimizer, DTensors where the parameter is one."""
    return {
        f"{key}.{name}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def _like(part: Tensor, whole: Tensor) -> Tensor:
    """`whole`, cut as `part` is; every rank has it, so nothing is sent."""
    whole = whole.to(part.device)
    if not isinstance(part, DTensor):
        return whole
    return distribute_tensor(whole, part.device_mesh, part.placements, src_data_rank=None)
