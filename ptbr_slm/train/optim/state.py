"""Any optimizer's state as named arrays, and back: for checkpoints without pickle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ptbr_slm.errors import SlmError

Arrays = dict[str, npt.NDArray[Any]]


def optimizer_arrays(model: nn.Module, optimizer: torch.optim.Optimizer) -> Arrays:
    """The state as `KEY.PARAMETER`, such as `exp_avg.embed.weight`; whole numbers as int64."""
    arrays: Arrays = {}
    for name, state, key in _entries(model, optimizer):
        value = state[key]
        if isinstance(value, Tensor):
            for part, tensor in _plain(key, value):
                arrays[f"{part}.{name}"] = tensor.detach().cpu().numpy()
        else:
            arrays[f"{key}.{name}"] = np.array(value, np.int64)
    return arrays


@torch.no_grad()
def load_optimizer_arrays(
    model: nn.Module, optimizer: torch.optim.Optimizer, arrays: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Put back what `optimizer_arrays` gave; nothing where it gave nothing.

    Raises ValueError where it is another model's, E_CONFIG_CHANGED where it is another optimizer's.
    """
    if not arrays:
        return
    wanted = optimizer_arrays(model, optimizer)
    _check(wanted, arrays)
    for name, state, key in _entries(model, optimizer):
        if isinstance(state[key], Tensor):
            for part, tensor in _plain(key, state[key]):
                tensor.copy_(torch.from_numpy(np.array(arrays[f"{part}.{name}"])))
        else:
            state[key] = int(arrays[f"{key}.{name}"])


def _entries(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(parameter's name, its state, key) of every entry."""
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter, {})
        for key in list(state):
            yield name, state, key


def _plain(key: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """A tensor itself, or the tensors that a quantised one (torchao) is made of, as `exp_avg.codes`."""
    wrapper: object = value
    if not is_traceable_wrapper_subclass(wrapper):
        yield key, value
        return
    for inner in wrapper.__tensor_flatten__()[0]:
        yield f"{key}.{inner}", getattr(value, inner)


def _check(wanted: Arrays, given: Mapping[str, npt.NDArray[Any]]) -> None:
    if set(wanted) != set(given):
        kinds = {name.partition(".")[0] for name in wanted}, {name.partition(".")[0] for name in given}
        if kinds[0] == kinds[1]:
            raise ValueError(f"arrays {sorted(set(wanted) ^ set(given))[:3]}")
        raise SlmError(
            "E_CONFIG_CHANGED",
            f"o checkpoint guarda o estado de outro otimizador ({', '.join(sorted(kinds[1]))}; "
            f"este usa {', '.join(sorted(kinds[0]))}).",
            where="--optimizer",
            hint="Continue com o mesmo --optimizer, ou comece outro treino com --init-from CHECKPOINT.",
        )
    for name, array in wanted.items():
        if array.shape != given[name].shape or array.dtype != given[name].dtype:
            theirs = f"{given[name].dtype} {given[name].shape}"
            raise ValueError(f"{name}: {theirs} != {array.dtype} {array.shape}")
