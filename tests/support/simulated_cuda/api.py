"""`torch.cuda` of a simulated machine, and the other functions of torch that ask for a card."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from simulated_cuda import device as state
from simulated_cuda import guard
from simulated_cuda.device import CONTEXT_BYTES, Card, cards, pin
from simulated_cuda.fused import attention, rms_norm
from simulated_cuda.tensor import SimulatedCuda


@contextmanager
def machine(*given: Card) -> Iterator[list[Card]]:
    """A machine with these cards, by default one T4, for as long as the block runs."""
    with ExitStack() as held:
        cards[:] = given or (Card(0),)
        held.callback(cards.clear)
        guard.register(len(cards))
        held.enter_context(_own_kernels())
        held.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)
        for target, name, value in _replacements():
            held.enter_context(mock.patch.object(target, name, value))
        held.enter_context(SimulatedCuda())
        yield cards


@contextmanager
def _own_kernels() -> Iterator[None]:
    """Keep operators whole that CUDA has a kernel for and that are made of others where a kernel is missing.

    Never called: the dispatcher only looks whether there is one, and then hands the operator to the tensor.
    """
    library = torch.library.Library("aten", "IMPL")
    for name in ("silu_backward",):
        library.impl(name, lambda *arguments: None, "CUDA")
    try:
        yield
    finally:
        library._destroy()


def _replacements() -> Iterator[tuple[Any, str, Any]]:
    cuda: Any = torch.cuda
    for name, function in _CUDA_FUNCTIONS.items():
        yield cuda, name, function
    functional: Any = torch.nn.functional
    yield functional, "scaled_dot_product_attention", attention(functional.scaled_dot_product_attention)
    yield functional, "rms_norm", rms_norm(functional.rms_norm)
    yield torch.distributed, "init_process_group", _with_gloo(torch.distributed.init_process_group)
    # DDP's statistics want a timer of CUDA events, which only a CUDA build has.
    yield torch._C._distributed_c10d.Logger, "set_runtime_stats_and_log", lambda self: None
    yield torch.Tensor, "cuda", _cuda
    yield torch.Tensor, "pin_memory", lambda self, device=None: pin(self)
    yield torch.Tensor, "is_pinned", lambda self, device=None: state.is_pinned(self)


def _with_gloo(original: Callable[..., Any]) -> Callable[..., Any]:
    """`init_process_group` whose NCCL is gloo: the dispatcher hands collectives the tensors on the host."""

    def init_process_group(backend: str, **given: Any) -> None:
        original(backend.replace("nccl", "gloo"), **given)

    return init_process_group


def _cuda(self: torch.Tensor, device: Any = None, non_blocking: bool = False) -> torch.Tensor:
    return self.to(_device(device), non_blocking=non_blocking)


def _card(device: Any = None) -> Card:
    return cards[_device(device).index]


def _device(device: Any = None) -> torch.device:
    if device is None:
        return torch.device("cuda", guard.current.index)
    if isinstance(device, int):
        return torch.device("cuda", device)
    found = torch.device(device)
    return torch.device("cuda", guard.current.index) if found.index is None else found


def _set_device(device: Any) -> None:
    index = _device(device).index
    if index >= len(cards):
        raise torch.AcceleratorError("CUDA error: invalid device ordinal")
    guard.current.index = index


def _properties(device: Any = None) -> Any:
    card = _card(device)
    major, minor = card.capability
    return SimpleNamespace(
        name=card.name,
        major=major,
        minor=minor,
        total_memory=card.total_bytes,
        multi_processor_count=40,
        uuid=f"simulated-{card.index}",
    )


def _memory(device: Any = None) -> tuple[int, int]:
    card = _card(device)
    return card.total_bytes - card.taken_bytes - CONTEXT_BYTES - card.largest, card.total_bytes


def _empty_cache() -> None:
    for card in cards:
        card.largest = card.allocated


def _reset_peak(device: Any = None) -> None:
    card = _card(device)
    card.peak, card.largest = card.allocated, card.allocated


def _set_rng_state(new_state: torch.Tensor, device: Any = None) -> None:
    assert new_state.device.type == "cpu" and new_state.dtype is torch.uint8
    _card(device).generator.set_state(new_state)


def _manual_seed_all(seed: int) -> None:
    for card in cards:
        card.generator.manual_seed(seed)


def _set_states(states: Sequence[torch.Tensor]) -> None:
    for index, new_state in enumerate(states):
        _set_rng_state(new_state, index)


def _refused(name: str) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"torch.cuda.{name} is not simulated")

    return refuse


_CUDA_FUNCTIONS: dict[str, Any] = {
    "_lazy_init": lambda: None,
    "_is_in_bad_fork": lambda: False,
    "is_available": lambda: bool(cards),
    "is_initialized": lambda: True,
    "init": lambda: None,
    "device_count": lambda: len(cards),
    "current_device": lambda: guard.current.index,
    "set_device": _set_device,
    "get_device_capability": lambda device=None: _card(device).capability,
    "get_device_name": lambda device=None: _card(device).name,
    "get_device_properties": _properties,
    "get_arch_list": lambda: ["sm_75", "sm_80", "sm_86", "sm_90"],
    # True on a T4, as in PyTorch, where emulation counts: no decision may depend on it.
    "is_bf16_supported": lambda including_emulation=True: including_emulation,
    "synchronize": lambda device=None: _card(device).wait("synchronize"),
    "mem_get_info": _memory,
    "memory_allocated": lambda device=None: _card(device).allocated,
    "max_memory_allocated": lambda device=None: _card(device).peak,
    "memory_reserved": lambda device=None: _card(device).largest,
    "max_memory_reserved": lambda device=None: _card(device).largest,
    "reset_peak_memory_stats": _reset_peak,
    "empty_cache": _empty_cache,
    "get_rng_state": lambda device="cuda": _card(device).generator.get_state(),
    "set_rng_state": _set_rng_state,
    "get_rng_state_all": lambda: [card.generator.get_state() for card in cards],
    "set_rng_state_all": _set_states,
    "manual_seed": lambda seed: _card().generator.manual_seed(seed),
    "manual_seed_all": _manual_seed_all,
    "Stream": _refused("Stream"),
    "Event": _refused("Event"),
    "CUDAGraph": _refused("CUDAGraph"),
    "graph": _refused("graph"),
}
"""Everything else of torch.cuda keeps its own way to fail without a card."""
