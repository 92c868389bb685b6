"""CUDA devices for the C++ of a PyTorch that was built without CUDA.

Autograd asks the device guard of a tensor's device for its streams, starts a thread for every device that the
guards count, and asks which accelerator there is (torch/csrc/autograd/engine.cpp, input_buffer.cpp,
aten/src/ATen/DeviceAccelerator.cpp). A CPU build has no guard for CUDA and hooks that say no to everything;
only a CUDA build can replace its own by one that does nothing (`ensureCUDADeviceGuardSet`, pytorch#160431).
So the CPU's guard, which does nothing, and the empty hooks get a few functions of ours in their tables of
virtual functions. Places in the tables: c10/core/impl/DeviceGuardImplInterface.h,
ATen/detail/AcceleratorHooksInterface.h and CUDAHooksInterface.h of PyTorch 2.13; layout: the Itanium C++ ABI
(Linux, macOS).

A process cannot go back: register them in processes that do nothing else.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_CPU, _CUDA = 0, 1
"""c10::DeviceType."""
_BOOL, _INDEX, _DEVICE = ctypes.c_bool, ctypes.c_int8, ctypes.c_uint16
"""bool, c10::DeviceIndex (and DeviceType), c10::Device {int8 type; int8 index}."""
_POINTER = ctypes.c_void_p
_FUNCTIONS = 64
"""At least as many as a table has; what lies behind it is copied and never called."""
_kept: list[object] = []
"""What C++ points to must not be collected."""


class Current(threading.local):
    """The current device of each thread."""

    index = 0


current = Current()


def why_not() -> str:
    """Why this machine cannot simulate a card, in Portuguese; empty where it can."""
    if platform.system() == "Windows":
        return "a placa simulada usa a ABI de C++ do Linux e do macOS"
    if torch.version.cuda is not None or not torch.__version__.startswith("2.13."):
        return f"a placa simulada precisa do PyTorch 2.13 só para CPU, e este é o {torch.__version__}"
    return ""


def register(count: int) -> None:
    """Let autograd work for `count` CUDA devices. Must come before the process's first backward pass."""
    folder = Path(torch.__file__).parent / "lib"
    core, library = ctypes.CDLL(str(folder / "libc10.so")), ctypes.CDLL(str(folder / "libtorch_cpu.so"))
    registry = (ctypes.c_void_p * 24).in_dll(core, "_ZN3c104impl26device_guard_impl_registryE")
    if registry[_CUDA]:
        raise RuntimeError("this PyTorch has a device guard for CUDA already")
    guard = (ctypes.c_void_p * 1)(_table(registry[_CPU], _guard_functions(count)))
    _kept.append(guard)
    registry[_CUDA] = ctypes.addressof(guard)
    find = library["_ZN2at6detail12getCUDAHooksEv"]
    find.restype = ctypes.c_void_p
    hooks = find()
    ctypes.cast(hooks, ctypes.POINTER(ctypes.c_void_p))[0] = _table(hooks, _hook_functions(count))


Function = tuple[Any, list[Any], Callable[..., Any]]
"""(C type of the result, C types of the arguments after `this`, what to do)."""


_SAME_DEVICE, _SAME_STREAM = {
    "x86_64": (
        b"\x0f\xb7\xc6\x31\xd2\xc3",  # movzx eax, si; xor edx, edx; ret
        b"\x48\x89\xf0\xc3",  # mov rax, rsi; ret
    ),
    "aarch64": (
        b"\x20\x3c\x00\x53\x01\x00\x80\xd2\xc0\x03\x5f\xd6",  # uxth w0, w1; mov x1, #0; ret
        b"\xe0\x03\x01\xaa\xe1\x03\x02\xaa\xc0\x03\x5f\xd6",  # mov x0, x1; mov x1, x2; ret
    ),
}.get(platform.machine().replace("AMD64", "x86_64").replace("arm64", "aarch64"), (b"", b""))
"""c10::Stream(DEFAULT, device) of a device, and a stream as it was given: two registers, which no callback of
ctypes can return."""


def _guard_functions(count: int) -> dict[int, Function | bytes]:
    return {
        5: _SAME_DEVICE,  # getStream
        6: _SAME_DEVICE,  # getDefaultStream
        9: _SAME_STREAM,  # exchangeStream
        0: (_INDEX, [], lambda this: _CUDA),  # type
        1: (_DEVICE, [_DEVICE], lambda this, new: _CUDA | _exchange(new >> 8) << 8),  # exchangeDevice
        2: (_DEVICE, [], lambda this: _CUDA | current.index << 8),  # getDevice
        3: (None, [_DEVICE], lambda this, new: _set(new >> 8)),  # setDevice
        4: (None, [_DEVICE], lambda this, new: _set(new >> 8)),  # uncheckedSetDevice
        # All work is in one stream, in order: events have nothing to do.
        11: (None, [_POINTER, _INDEX], lambda this, event, index: None),  # destroyEvent
        12: (None, [_POINTER, _POINTER, _INDEX, ctypes.c_int], lambda this, *event: None),  # record
        13: (None, [_POINTER, _POINTER], lambda this, event, stream: None),  # block
        14: (_BOOL, [_POINTER], lambda this, event: True),  # queryEvent
        15: (_INDEX, [], lambda this: count),  # deviceCount
        17: (_BOOL, [_POINTER], lambda this, stream: True),  # queryStream
        18: (None, [_POINTER], lambda this, stream: None),  # synchronizeStream
        19: (_BOOL, [_POINTER], lambda this, stream: False),  # isStreamCapturing
        20: (None, [_POINTER], lambda this, event: None),  # synchronizeEvent
        21: (None, [_INDEX], lambda this, index: None),  # synchronizeDevice
        22: (None, [_POINTER, _POINTER], lambda this, data, stream: None),  # recordDataPtrOnStream
    }


def _hook_functions(count: int) -> dict[int, Function | bytes]:
    return {
        2: (_BOOL, [], lambda this: True),  # isBuilt
        3: (_BOOL, [], lambda this: True),  # isAvailable
        4: (_BOOL, [_INDEX], lambda this, index: True),  # hasPrimaryContext
        5: (None, [], lambda this: None),  # init
        6: (_INDEX, [], lambda this: count),  # deviceCount
        7: (None, [_INDEX], lambda this, index: _set(index)),  # setCurrentDevice
        8: (_INDEX, [], lambda this: current.index),  # getCurrentDevice
        9: (_INDEX, [_INDEX], lambda this, index: _exchange(index)),  # exchangeDevice
        10: (_INDEX, [_INDEX], lambda this, index: _exchange(index)),  # maybeExchangeDevice
        16: (_BOOL, [], lambda this: True),  # hasCUDA
    }


def _set(index: int) -> None:
    current.index = index


def _exchange(index: int) -> int:
    before, current.index = current.index, index
    return before


def _table(instance: int, functions: dict[int, Function | bytes]) -> int:
    """Address of a copy of an object's table of virtual functions, with these in it."""
    original = ctypes.cast(instance, ctypes.POINTER(ctypes.c_void_p))[0]
    table = (ctypes.c_void_p * _FUNCTIONS)(
        *ctypes.cast(original, ctypes.POINTER(ctypes.c_void_p))[:_FUNCTIONS]
    )
    for index, given in functions.items():
        if isinstance(given, bytes):
            table[index] = _executable(given)
            continue
        result, arguments, function = given
        callback = ctypes.CFUNCTYPE(result, ctypes.c_void_p, *arguments)(function)
        _kept.append(callback)
        table[index] = ctypes.cast(callback, ctypes.c_void_p)
    _kept.append(table)
    return ctypes.addressof(table)


def _executable(code: bytes) -> int:
    """Address of these instructions."""
    if not code:
        raise RuntimeError(f"no code for {platform.machine()}")
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    _kept.append(page)
    return ctypes.addressof(ctypes.c_char.from_buffer(page))
