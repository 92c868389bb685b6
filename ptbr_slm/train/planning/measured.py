"""What the memory planner's two figures are in truth, on this computer: for its tests and its benchmark."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ptbr_slm.model import Llama


def saved_bytes(llama: Llama, forward: Callable[[], torch.Tensor]) -> int:
    """Bytes of the distinct storages that autograd packs, parameters and buffers left out."""
    owned = {t.untyped_storage().data_ptr() for t in [*llama.parameters(), *llama.buffers()]}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in owned:
            kept[pointer] = tensor.untyped_storage().nbytes()
        # Without its history: a hook that holds on to the graph that holds it is a cycle that nothing frees.
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(kept.values())


def peak_bytes(forward: Callable[[], torch.Tensor]) -> int:
    """The most that a second micro-batch adds to weights and gradients, in PyTorch's allocator."""
    forward().backward()  # type: ignore[no-untyped-call]
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        forward().backward()  # type: ignore[no-untyped-call]
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    running = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        running += event.nbytes()
        peak = max(peak, running)
    return peak
