"""An opened session with the memory that its tensors lie in: what a binding is made over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ptbr_slm.runtime.onnx.gpu.captures import Captures, free_run
from ptbr_slm.runtime.onnx.memory import HostMemory, Memory
from ptbr_slm.runtime.onnx.step_buffers import StepBuffers
from ptbr_slm.runtime.onnx.tensorrt.profiles import Profile

Session = Any
"""An onnxruntime.InferenceSession; the package has no types."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a provider's opener returns."""

    session: Session
    memory: Memory = field(default_factory=HostMemory)
    captures: bool = False
    """Whether decode steps are captured as CUDA graphs and replayed."""
    facts: dict[str, Any] = field(default_factory=dict)
    """For `Engine.describe`: provider, cuda_graph, ..."""
    check: Callable[[], None] | None = None
    """To be called once, after the first run: raises E_PROVIDER where that did not run as it should."""
    instead: Callable[[BaseException], Opened | None] | None = None
    """Another opening of the same graph, to be tried after this error of the first runs; None for none."""
    prefill: Opened | None = None
    """Another session over the same graph for many tokens at once; None where one session does all."""
    profile: Profile | None = None
    """The shapes that a call may have; None for any."""
    _captures: Captures = field(default_factory=Captures)
    _buffers: dict[tuple[int, int], StepBuffers] = field(default_factory=dict)

    @property
    def whole_caches(self) -> bool:
        """Whether the graph's caches have room for the whole context at once, as a number in their shape."""
        past = next(value for value in self.session.get_inputs() if value.name.startswith("past_"))
        return isinstance(past.shape[2], int)

    def step_buffers(self, count: int, vocab_size: int) -> StepBuffers:
        """Those of every step of `count` rows."""
        key = count, vocab_size
        if key not in self._buffers:
            self._buffers[key] = StepBuffers(self.memory, count, vocab_size)
        return self._buffers[key]

    def free_run(self) -> Any:
        """RunOptions of a run whose shapes vary; None where nothing is captured anyway."""
        return free_run() if self.captures else None

    def captured_run(self) -> tuple[Any, int]:
        """RunOptions of a step that is captured under an id of its own, and that id; (None, 0) as above.

        See `Captures.next` for when there are many.
        """
        return self._captures.next() if self.captures else (None, 0)

    def release(self, number: int) -> None:
        """Forget a captured graph, whose buffers are about to go."""
        if number:
            self.session.release_captured_graph(number)
