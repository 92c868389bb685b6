"""Any optimizer's state as named arrays, and back: for checkpoints without pickle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.weights import Array, Deferred, whole


def optimizer_arrays(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, npt.NDArray[Any]]:
    """The state as `KEY.PARAMETER`, such as `exp_avg.embed.weight`; whole numbers as int64."""
    return {name: array.make() for name, array in deferred_state(model, optimizer).items()}


def deferred_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Deferred]:
    """As `optimizer_arrays`, each copied from its device when it is wanted."""
    arrays: dict[str, Deferred] = {}
    for name, state, key in _entries(model, optimizer):
        value = state[key]
        if isinstance(value, Tensor):
            arrays |= {f"{part}.{name}": deferred(tensor) for part, tensor in _plain(key, value)}
        else:
            arrays[f"{key}.{name}"] = Deferred((), np.dtype(np.int64), partial(np.array, value, np.int64))
    return arrays


def deferred(tensor: Tensor) -> Deferred:
    """A tensor as an array on the host, copied when it is wanted; it must be unchanged until then."""
    dtype = torch.empty(0, dtype=tensor.dtype).numpy().dtype
    return Deferred(tuple(tensor.shape), dtype, lambda: tensor.detach().cpu().numpy())


@torch.no_grad()
def load_optimizer_arrays(
    model: nn.Module, optimizer: torch.optim.Optimizer, arrays: Mapping[str, Array]
) -> None:
    """Put back what `optimizer_arrays` gave; nothing where it gave nothing.

    Raises ValueError where it is another model's, E_CONFIG_CHANGED where it is another optimizer's.
    """
    if not arrays:
        return
    _check(deferred_state(model, optimizer), arrays)
    for name, state, key in _entries(model, optimizer):
        if isinstance(state[key], Tensor):
            for part, tensor in _plain(key, state[key]):
                tensor.copy_(torch.from_numpy(np.array(whole(arrays[f"{part}.{name}"]))))
        else:
            state[key] = int(whole(arrays[f"{key}.{name}"]))


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


def _check(wanted: Mapping[str, Array], given: Mapping[str, Array]) -> None:
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
