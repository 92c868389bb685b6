"""A model in shards (FSDP2): whole weights in and out of it, and its optimizer's state on disk by
torch.distributed.checkpoint.

The shards lie as safetensors under `training/shards/` of a checkpoint, one file a rank, named as the arrays
of `optim.optimizer_arrays`: any number of ranks, one without FSDP too, reads them back. The weights are
gathered into the model folder as ever, so that every checkpoint can be used and exported.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ptbr_slm.errors import SlmError, from_os_error
from ptbr_slm.model import Llama
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
    """Every rank writes its part of the optimizer's state below `checkpoint`. Raises E_DISK_FULL and its
    kin.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    writer = HuggingFaceStorageWriter(str(checkpoint / FOLDER), save_distributed=True)
    try:
        save(_state(model, optimizer), storage_writer=writer, process_group=ranks.control)
    except CheckpointException as error:
        cause = next(iter(error.failures.values()))[0]
        if isinstance(cause, OSError):
            raise from_os_error(cause, checkpoint) from error
        raise SlmError(
            "E_IO",
            f"não foi possível gravar o checkpoint ({cause}).",
            where=checkpoint,
            hint="Confira o disco (df -h) e repita o mesmo comando: ele continua do checkpoint anterior.",
        ) from error


def load_shards(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put back the state that any number of ranks saved into a model on any number of ranks.

    Raises ValueError where it is another model's or another optimizer's.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = HuggingFaceStorageReader(str(checkpoint / FOLDER))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it reads by itself is what was asked
        try:
            load(_state(model, optimizer), storage_reader=reader, no_dist=True)
        except (CheckpointException, RuntimeError) as error:
            raise ValueError(f"shards: {error}") from error


@torch.no_grad()
def load_into_shards(
    model: nn.Module, optimizer: torch.optim.Optimizer, arrays: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Each rank's part of whole arrays, as `optim.optimizer_arrays` gave them. Raises KeyError or
    ValueError.
    """
    for name, value in _state(model, optimizer).items() if arrays else ():
        array = torch.from_numpy(arrays[name].copy())
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
