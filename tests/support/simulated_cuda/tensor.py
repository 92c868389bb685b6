"""Tensors that say they are on `cuda:N`, and the dispatcher that runs their operators on the CPU.

A `DeviceTensor` is a wrapper subclass: autograd, autocast and the optimizers see a CUDA tensor (dispatch keys
AutogradCUDA and AutocastCUDA, `device.type == "cuda"`), and below them every operator arrives here. It is
checked as CUDA would check it, run on the CPU tensor inside, and its result is wrapped again. So a training
computes the numbers that it computes on a CPU, while whatever would fail on a card fails here.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.utils._pytree as pytree
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from simulated_cuda import kernels
from simulated_cuda.device import Card, Lease, cards
from simulated_cuda.guard import current

aten = torch.ops.aten


class DeviceTensor(torch.Tensor):
    """A tensor in a simulated card's memory. `host` holds the numbers, and only a kernel may touch them."""

    host: torch.Tensor
    lease: Lease

    @staticmethod
    def __new__(cls, host: torch.Tensor, card: Card) -> DeviceTensor:
        with torch.inference_mode(False):  # where a wrapper could not be made
            tensor = torch.Tensor._make_wrapper_subclass(
                cls,
                host.shape,
                strides=host.stride(),
                storage_offset=host.storage_offset(),
                dtype=host.dtype,
                device=card.device,
            )
        tensor.host, tensor.lease = host, card.lease(host)
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})

    # Makes it a "traceable wrapper subclass": Module.to then swaps parameters instead of setting `.data`,
    # which would leave `host` behind.
    def __tensor_flatten__(self) -> tuple[list[str], torch.device]:
        return ["host"], self.device

    @staticmethod
    def __tensor_unflatten__(
        inner: dict[str, torch.Tensor], device: torch.device, size: Any, stride: Any
    ) -> Any:
        return DeviceTensor(inner["host"], cards[device.index])

    # What PyTorch's C++ does for CUDA tensors and refuses to do for subclasses.
    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.cpu().detach().numpy()
        raise TypeError(
            f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy the tensor "
            "to host memory first."
        )

    def __array__(self, *arguments: Any) -> Any:
        return self.numpy()

    def data_ptr(self) -> int:
        raise RuntimeError("the host reads the address of a tensor on the card")

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"DeviceTensor({tuple(self.shape)}, {self.dtype}, {self.device})"


class SimulatedCuda(TorchDispatchMode):
    """Brings the operators here that have no tensor among their arguments yet, such as `torch.empty`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})


def dispatch(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Check an operator as CUDA would, run it on the CPU, wrap what it returns."""
    flat, _ = pytree.tree_flatten((args, kwargs))
    on_card = [leaf for leaf in flat if isinstance(leaf, DeviceTensor)]
    asked = next((leaf for leaf in flat if isinstance(leaf, torch.device)), None)
    if not on_card and (asked is None or asked.type != "cuda"):
        return func(*args, **kwargs)
    if torch.is_inference_mode_enabled() and func._can_decompose():
        with SimulatedCuda():  # without autograd, operators that are made of others arrive whole
            return func.decompose(*args, **kwargs)
    if func in kernels.COPIES:
        return _copy(func, args, kwargs)
    if asked is not None and asked.type == "cpu":  # a new tensor on the host, shaped like one on the card
        args, kwargs = pytree.tree_map_only(DeviceTensor, lambda tensor: tensor.host, (args, kwargs))
        return func(*args, **kwargs)
    card = cards[on_card[0].device.index] if on_card else _card_of(asked)
    if asked is not None:
        card = _card_of(asked)
    kernels.check(card, func, flat, on_card)
    card.note(func, on_card)

    def inside(leaf: Any) -> Any:
        if isinstance(leaf, DeviceTensor):
            return leaf.host
        return card.backing if isinstance(leaf, torch.device) else leaf

    inner_args, inner_kwargs = pytree.tree_map(inside, (args, kwargs))
    if inner_kwargs.get("pin_memory"):
        raise RuntimeError("Only dense CPU tensors can be pinned")
    if func.namespace == "c10d" and card.shapes_only:  # there are no numbers to send
        return args[0], _work_over(on_card)
    result = kernels.run(card, func, inner_args, inner_kwargs)
    if torch.Tag.inplace_view in func.tags:  # such as squeeze_: the wrapper gets its new shape, too
        with no_dispatch():
            func(*args, **kwargs)
    given = {id(tensor.host): tensor for tensor in on_card}
    if func.namespace == "c10d":
        result = _finished(result, given)

    def outside(tensor: torch.Tensor) -> torch.Tensor:
        """What an operator wrote into comes back as the very object that was given."""
        return given[id(tensor)] if id(tensor) in given else DeviceTensor(tensor, card)

    return pytree.tree_map_only(torch.Tensor, outside, result)


def _finished(result: Any, given: dict[int, Any]) -> Any:
    """A collective on the hosts' tensors, waited for, and its future made to hold the cards' tensors."""
    tensors, work = result if isinstance(result, tuple) else (None, result)
    torch._C._distributed_c10d.Work.unbox(work).wait()
    done = _work_over(list(given.values()))
    return (tensors, done) if isinstance(result, tuple) else done


def _work_over(tensors: list[Any]) -> Any:
    """A collective's handle, finished, with these tensors in its future."""
    future = torch.futures.Future()
    future.set_result(tensors)
    return torch._C._distributed_c10d._create_work_from_future(future).boxed()


def _card_of(device: torch.device) -> Card:
    index = current.index if device.index is None else device.index
    if index >= len(cards):
        raise torch.AcceleratorError("CUDA error: invalid device ordinal")
    return cards[index]


def _copy(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`_to_copy` and `copy_`, the operators in which host and card meet."""
    if func is aten._to_copy.default:
        source, dtype = args[0], kwargs.get("dtype") or args[0].dtype
        asked = kwargs.get("device") or source.device
        wait = not kwargs.get("non_blocking")
        if asked.type == "cuda":
            card = _card_of(asked)
            card.note(func, [])
            if isinstance(source, DeviceTensor):
                return DeviceTensor(source.host.to(dtype, copy=True), card)
            card.read_host(source, wait=wait)
            return DeviceTensor(card.from_host(source, dtype), card)
        card = cards[source.device.index]
        card.note(func, [source])
        target = torch.empty_strided(source.shape, source.host.stride(), dtype=dtype)
        card.write_host(target, source.host, wait=wait)
        return target
    target, source = args[0], args[1]
    wait = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
    if isinstance(target, DeviceTensor):
        card = cards[target.device.index]
        card.note(func, [target])
        if not isinstance(source, DeviceTensor):
            card.read_host(source, wait=wait)
            source = DeviceTensor(card.from_host(source, target.dtype), card)
        target.host.copy_(source.host)
    else:
        card = cards[source.device.index]
        card.note(func, [source])
        card.write_host(target, source.host, wait=wait)
    return target
